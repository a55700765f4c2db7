"""The forward over a batch: what a storage's layout of the batch costs the model that attends to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from kvbench.measure.stopwatch import Stopwatch, make_stopwatch
from kvbench.replay.content import Contents
from kvbench.replay.drive import FillerContent, Latents
from kvbench.replay.lockstep import SearchClock, take_turns
from kvbench.trace.steps import Step
from kvcache import CacheBackend, CacheConfig, Geometry, KeysValues, make_backend

__all__ = ["AttendingContent", "Attention", "attend_in_turns", "forwards", "strided_bytes"]


def strided_bytes(batch: KeysValues) -> int:
    """Bytes of live keys and values whose head's next token is not the next in memory.

    Attention reads them with strides, or copies them first. A batch like LightZero's, head by head, has none.
    """
    live = [tensor for layer in batch for tensor in layer.get()]
    return sum(each.nbytes for each in live if each.stride(-1) != 1 or each.stride(-2) != each.shape[-1])


class Attention:
    """A model's attention in every layer, as LightZero 0.2.0 computes it: token by token, by two products.

    Projections and the layers between are left out: they do not depend on the batch.

    Args:
        geometry: of the model.
        device: of the batches.
        dtype: of the batches.
    """

    def __init__(
        self, geometry: Geometry, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        shape = (geometry.env_num, 1, geometry.num_heads, geometry.head_dim)
        made = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        self._made = made.to(device=device, dtype=dtype)  # as a projection leaves them: [B, 1, H, D]
        self._scale = 1 / math.sqrt(geometry.head_dim)

    @torch.no_grad()
    def __call__(self, batch: KeysValues, tokens: int) -> Tensor:
        """Append ``tokens`` to every layer. Each attends to all before it; the last one's result, ``[B, H, 1, D]``."""
        rows = batch[0].get()[0].shape[0]
        query, key, value = self._projected(rows)
        for _ in range(tokens):
            for layer in batch:
                layer.update(key, value)
                keys, values = layer.get()
                scores = torch.softmax((query @ keys.transpose(-2, -1)) * self._scale, dim=-1)
                attended: Tensor = scores @ values
        return attended

    def _projected(self, rows: int) -> tuple[Tensor, ...]:
        """Query, key and value of so many rows, ``[B, H, 1, D]``. Several leaves of an environment have the same."""
        if rows > self._made.shape[1]:
            self._made = self._made.repeat(1, -(-rows // self._made.shape[1]), 1, 1, 1)
        return self._made[:, :rows].transpose(2, 3).unbind(0)


class AttendingContent(FillerContent):
    """Fills like ``FillerContent``, but by a forward that attends to the batch, and is timed at recurrent steps.

    Args:
        backend: to be filled.
        stopwatch: for the forward.

    Attributes:
        laps: nanoseconds of each forward.
        strided: ``strided_bytes`` of each batch.
    """

    def __init__(self, backend: CacheBackend, stopwatch: Stopwatch) -> None:
        super().__init__(backend)
        config = backend.config
        self._stopwatch = stopwatch
        self._attention: Callable[[KeysValues, int], Tensor] = Attention(config.geometry, config.device, config.dtype)
        self.laps: list[int] = []
        self.strided: list[int] = []

    def append(self, batch: KeysValues, step: Step) -> None:
        if not step.is_recurrent:
            super().append(batch, step)
            return
        self.strided.append(strided_bytes(batch))
        _, (nanoseconds, _) = self._stopwatch.time(self._attention, batch, step.tokens)
        self.laps.append(nanoseconds)


def attend_in_turns(
    steps: Iterable[Step], config: CacheConfig, backends: Sequence[str]
) -> tuple[dict[str, SearchClock], dict[str, AttendingContent]]:
    """Drive fresh backends through the steps in turns. Of each, by its name: the cache's times and the forwards'."""
    stopwatch, contents = make_stopwatch(config.device), Contents(config.geometry)
    drivers: dict[str, AttendingContent] = {}
    for name in backends:
        backend = make_backend(name, config)
        backend.position_shift = contents.position_shift(config.device, config.dtype)
        drivers[name] = AttendingContent(backend, stopwatch)
    return take_turns(steps, drivers, Latents(config.geometry.embed_dim, config.device), stopwatch), drivers


def forwards(steps: Iterable[Step], config: CacheConfig, backends: Sequence[str]) -> dict[str, dict[str, float]]:
    """The forward over each backend's batches, over that of the first one's, all in turns: JSON, by backend.

    ``median``, ``p25`` and ``p75`` are of pairs of forwards, ``strided_bytes`` of the batch that has most. Without
    forwards there is nothing. Where one backend misses what another finds, batches differ in more than their layout.
    """
    _, drivers = attend_in_turns(steps, config, backends)
    first = np.array(drivers[backends[0]].laps, dtype=float)
    if not len(first):
        return {}
    found = {}
    for name, driver in drivers.items():
        low, middle, high = np.percentile(driver.laps / first, (25, 50, 75)).tolist()
        found[name] = {"median": middle, "p25": low, "p75": high, "strided_bytes": max(driver.strided)}
    return found
