"""How much faster a recurrent step is than legacy's, by how full the contexts are: ``python benchmarks/fill.py``.

A step is what one simulation asks of the cache: hash, look up, assemble, hash, store, and its share of the clear that
begins a search. The model's own work is left out. Contents are random and not checked; ``kvbench replay`` checks them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch

from kvbench.measure.machine import Machine
from kvcache import GEOMETRIES, TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, Scope, make_backend

BACKENDS = ("legacy", "new:paged", "new:slab")
FILLS = ("start", "unequal", "sliding")
SIMULATIONS = 25
INIT_SLOTS = 4  # only the last root is looked up


def root_steps(geometry: Geometry, fill: str) -> list[int]:
    """Steps that each environment has behind it: ``start`` 1, ``sliding`` enough to slide, ``unequal`` all between."""
    full = geometry.context_length // TOKENS_PER_STEP + 2
    rows = geometry.env_num
    return {"start": [1] * rows, "sliding": [full] * rows}.get(fill) or [
        max(1, full * (row + 1) // rows) for row in range(rows)
    ]


class Driver:
    """Drives one backend with the requests that the other backends get too."""

    def __init__(self, name: str, geometry: Geometry) -> None:
        self.backend: CacheBackend = make_backend(name, CacheConfig(geometry, init_pool_size=INIT_SLOTS))
        shape = (geometry.num_heads, geometry.context_length - 3, geometry.head_dim)
        if geometry.positions == "absolute":
            self.backend.position_shift = torch.ones(geometry.num_layers, 2, *shape)
        self.new = torch.randn(geometry.env_num, geometry.num_heads, TOKENS_PER_STEP, geometry.head_dim)
        self.seconds = 0.0

    def timed(self, call: Callable[[], object]) -> None:
        began = perf_counter()
        call()
        self.seconds += perf_counter() - began

    def infer(self, envs: Sequence[int], parents: np.ndarray | None, latents: np.ndarray, scope: Scope) -> float:
        """One inference, from the parents (None: from nothing) to the new latents. Returns seconds of the cache."""
        self.seconds, backend = 0.0, self.backend

        def retrieve() -> None:
            keys = [None] * len(envs) if parents is None else backend.hash_states(parents)
            found = backend.lookup(envs, keys, scope)
            assert parents is None or min(found) > 0, "the fill must not miss"
            backend.assemble()

        self.timed(retrieve)
        tokens = 1 if parents is None else TOKENS_PER_STEP
        for layer in range(len(backend.keys_values_wm)):
            new = self.new[: len(envs), :, :tokens]
            backend.keys_values_wm[layer].update(new, new)
        self.timed(lambda: backend.store(envs, backend.hash_states(latents), scope))
        return self.seconds


def measure(geometry: Geometry, fill: str, searches: int) -> np.ndarray:
    """Seconds of each recurrent step ``[searches * SIMULATIONS, backends]``, the backends in turns."""
    random = np.random.default_rng(0)
    latents = random.standard_normal((geometry.context_length + 2 * SIMULATIONS, geometry.env_num, geometry.embed_dim))
    latents = latents.astype(np.float32)
    drivers = [Driver(name, geometry) for name in BACKENDS]
    steps = root_steps(geometry, fill)
    for step in range(max(steps)):
        # The shorter contexts begin later, so that all end with the same latents.
        begun = [env for env in range(geometry.env_num) if step >= max(steps) - steps[env]]
        first = [env for env in begun if step == max(steps) - steps[env]]
        grown = [env for env in begun if env not in first]
        for driver in drivers:
            if first:
                driver.infer(first, None, latents[step, first], Scope.ROOT)
            if grown:
                driver.infer(grown, latents[step - 1, grown], latents[step, grown], Scope.ROOT)
    root, envs, rows = max(steps) - 1, list(range(geometry.env_num)), []
    for search in range(searches + 1):  # the first one allocates, and is not counted
        for driver in drivers:
            driver.seconds = 0.0
            driver.timed(driver.backend.clear_recur_cache)
        clear = np.array([driver.seconds for driver in drivers]) / SIMULATIONS
        for leaf in range(root + 1, root + 1 + SIMULATIONS):
            parents = latents[random.integers(root, leaf, len(envs)), envs]  # a node of the tree, each row its own
            order = np.roll(np.arange(len(drivers)), leaf)
            row = np.zeros(len(drivers))
            for which in order:
                row[which] = drivers[which].infer(envs, parents, latents[leaf], Scope.NODE)
            if search:
                rows.append(row + clear)
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="times a recurrent step by the fill of the contexts")
    parser.add_argument("--geometry", nargs="*", default=list(GEOMETRIES), choices=list(GEOMETRIES))
    parser.add_argument("--searches", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"| geometry | fill | legacy, us | {' | '.join(f'{name}: times faster' for name in BACKENDS[1:])} |")
    print("|---|---|---|" + "---|" * (len(BACKENDS) - 1))
    for name in arguments.geometry:
        for fill in FILLS:
            seconds = measure(GEOMETRIES[name], fill, arguments.searches)
            ratios = np.percentile(seconds[:, :1] / seconds[:, 1:], (25, 50, 75), axis=0).T
            shown = " | ".join(f"{middle:.1f} ({low:.1f} to {high:.1f})" for low, middle, high in ratios)
            print(f"| {name} | {fill} | {np.median(seconds[:, 0]) * 1e6:.0f} | {shown} |", flush=True)
    print(Machine.describe())


if __name__ == "__main__":
    main()
