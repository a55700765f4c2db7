"""Backends driven through searches of any fill, all with the same requests and the same contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from kvbench.measure.stopwatch import CudaStopwatch
from kvcache import TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, Scope, make_backend

__all__ = ["FILLS", "Driver", "grown", "simulated"]

FILLS = ("start", "middle", "full", "sliding", "unequal")
_INIT_SLOTS = 4  # only the last root is looked up
_SLIDES = 3  # of a window that slides


class Driver:
    """One backend, and what its calls took.

    Args:
        name: of the backend.
        geometry: shapes.
        device: where its contexts live.
        dtype: of its contexts.
        stopwatch: times its calls; None: nobody does.

    Attributes:
        host_ns: of the last inference's calls, or of the last clear, by the host's clock.
        device_ns: by the device's.
    """

    def __init__(
        self, name: str, geometry: Geometry, device: str, dtype: torch.dtype, stopwatch: CudaStopwatch | None = None
    ) -> None:
        config = CacheConfig(geometry, init_pool_size=_INIT_SLOTS, device=device, dtype=dtype)
        self.name = name
        self.backend: CacheBackend = make_backend(name, config)
        self._place = {"device": device, "dtype": dtype}
        self._stopwatch = stopwatch
        if geometry.positions == "absolute":
            shape = geometry.num_layers, 2, geometry.num_heads, geometry.slid_size, geometry.head_dim
            shift = torch.randn(shape, generator=torch.Generator().manual_seed(1))
            self.backend.position_shift = shift.to(**self._place)

    def infer(
        self, envs: Sequence[int], parents: np.ndarray | None, latents: np.ndarray, tokens: Tensor, scope: Scope
    ) -> None:
        """One inference.

        Args:
            envs: ``[B]``.
            parents: latents ``[B, 1, E]`` that contexts end with; None: they begin.
            latents: that they are stored under, ``[B, 1, E]``.
            tokens: what the model would append, ``[L, 2, B, H, n, D]``, on the host.
            scope: of roots or nodes.
        """
        backend = self.backend
        self.host_ns = self.device_ns = 0.0
        self._timed(self._retrieve, envs, parents, scope)
        for layer, (keys, values) in zip(backend.keys_values_wm, tokens.to(**self._place), strict=True):
            layer.update(keys, values)
        self._timed(lambda: backend.store(envs, backend.hash_states(latents), scope))

    def clear(self) -> None:
        """End the search."""
        self.host_ns = self.device_ns = 0.0
        self._timed(self.backend.clear_recur_cache)

    def _retrieve(self, envs: Sequence[int], parents: np.ndarray | None, scope: Scope) -> None:
        keys = [None] * len(envs) if parents is None else self.backend.hash_states(parents)
        found = self.backend.lookup(envs, keys, scope)
        assert parents is None or min(found) > 0, "the fill must not miss"
        self.backend.assemble()

    def _timed(self, call: object, *args: object) -> None:
        if self._stopwatch is None:
            call(*args)  # type: ignore[operator]
            return
        _, (host, device) = self._stopwatch.time(call, *args)  # type: ignore[arg-type]
        self.host_ns += host
        self.device_ns += device() if device is not None else 0.0


class Requests:
    """The latents and tokens of an episode of all environments, from a seed."""

    def __init__(self, geometry: Geometry, seed: int = 0) -> None:
        self._geometry = geometry
        self._random = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def latents(self) -> np.ndarray:
        """Of all environments, ``[B, 1, E]``: no two are the same."""
        shape = self._geometry
        return self._random.standard_normal((shape.env_num, 1, shape.embed_dim)).astype(np.float32)

    def tokens(self, rows: int, count: int) -> Tensor:
        shape = self._geometry
        sizes = shape.num_layers, 2, rows, shape.num_heads, count, shape.head_dim
        return torch.randn(sizes, generator=self._generator)

    def node(self, nodes: int) -> np.ndarray:
        """A node of the tree for each environment, ``[B]``."""
        return self._random.integers(0, nodes, self._geometry.env_num)


def _fills_at(geometry: Geometry) -> dict[int, str]:
    """After which step of an episode contexts have which fill."""
    full = (geometry.context_length - 1) // TOKENS_PER_STEP  # the next step slides
    return {1: "start", max(2, full // 2): "middle", max(3, full): "full", max(4, full + _SLIDES): "sliding"}


def grown(
    drivers: Sequence[Driver], geometry: Geometry, fills: Sequence[str] = FILLS
) -> Iterator[tuple[str, Requests, np.ndarray]]:
    """Drive roots through episodes: yields at each fill, with what is needed to simulate below the roots there."""
    at = {step: fill for step, fill in _fills_at(geometry).items() if fill in fills}
    if at:
        yield from _episode(drivers, geometry, at, [0] * geometry.env_num)
    if "unequal" in fills:
        last = max(_fills_at(geometry))
        late = [last - max(1, last * (env + 1) // geometry.env_num) for env in range(geometry.env_num)]
        for each in drivers:
            each.backend.clear_all()
        yield from _episode(drivers, geometry, {last: "unequal"}, late)


def _episode(
    drivers: Sequence[Driver], geometry: Geometry, at: dict[int, str], late: Sequence[int]
) -> Iterator[tuple[str, Requests, np.ndarray]]:
    """Steps of all environments; an environment begins some steps late."""
    requests = Requests(geometry)
    before = requests.latents()
    for step in range(1, max(at) + 1):
        latents = requests.latents()
        begun = [env for env in range(geometry.env_num) if step > late[env]]
        first = [env for env in begun if step == late[env] + 1]
        later = [env for env in begun if env not in first]
        for envs, parents, count in ((first, None, 1), (later, before, TOKENS_PER_STEP)):
            if envs:
                tokens = requests.tokens(len(envs), count)
                for each in drivers:
                    given = None if parents is None else parents[envs]
                    each.infer(envs, given, latents[envs], tokens, Scope.ROOT)
        for each in drivers:
            each.backend.clear_recur_cache()
        before = latents
        if step in at:
            yield at[step], requests, latents


def simulated(
    drivers: Sequence[Driver], geometry: Geometry, requests: Requests, roots: np.ndarray, simulations: int
) -> Iterator[None]:
    """Drive simulations below the roots, each from a node of its own: yields after each, all drivers' done."""
    nodes, envs = [roots], list(range(geometry.env_num))
    for number in range(simulations):
        chosen = requests.node(len(nodes))
        parents = np.stack([nodes[node][env] for env, node in enumerate(chosen)])
        latents, tokens = requests.latents(), requests.tokens(len(envs), TOKENS_PER_STEP)
        order = drivers if number % 2 else list(reversed(drivers))
        for each in order:
            each.infer(envs, parents, latents, tokens, Scope.NODE)
        nodes.append(latents)
        yield
