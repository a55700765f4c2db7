"""What the fill of the contexts decides: legacy over new at the start of an episode, and where every window slides.

``python benchmarks/fill.py`` prints a row for each geometry. A search is synthetic: a root for each environment, then
simulations whose parents form a binary tree. Timed are lookup, assemble and store of each recurrent step, and its share
of the clear that ends a search; the backends take turns at every step. Contents are compared in ``kvbench replay``.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from kvbench.measure.machine import Machine
from kvbench.replay.content import Contents
from kvcache import GEOMETRIES, TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, Scope, make_backend

START_TOKENS = 5  # of a root some steps into an episode
FILLS = ("start", "sliding")
BACKENDS = ("legacy", "new:paged", "new:slab")
SIMULATIONS, SEARCHES, WARM_UP = 16, 6, 2


class Driver:
    """One backend, driven through searches.

    Args:
        name: of the backend.
        geometry: of model and search.
        fill: ``start``: roots of ``START_TOKENS``; ``sliding``: roots as long as a window that has slid.
    """

    def __init__(self, name: str, geometry: Geometry, fill: str) -> None:
        self.backend: CacheBackend = make_backend(name, CacheConfig(geometry))
        self.backend.position_shift = Contents(geometry).position_shift("cpu", torch.float32)
        self._geometry = geometry
        self._fill = fill
        self._envs = list(range(geometry.env_num))
        self._keys = itertools.count(1)
        self._tokens: dict[int, torch.Tensor] = {}
        self._nodes: list[list[int]] = []

    def root(self) -> None:
        """A new search: nothing of it is timed."""
        first = START_TOKENS if self._fill == "start" else self._geometry.context_length - TOKENS_PER_STEP
        self._nodes = [self._step(None, Scope.ROOT, first)[0]]
        if self._fill == "sliding":  # until the window has slid
            self._nodes = [self._step(self._nodes[0], Scope.ROOT, TOKENS_PER_STEP)[0]]

    def simulate(self) -> int:
        """One recurrent step: nanoseconds of the cache."""
        parent = self._nodes[(len(self._nodes) - 1) // 2]
        keys, spent = self._step(parent, Scope.NODE, TOKENS_PER_STEP)
        self._nodes.append(keys)
        return spent

    def clear(self) -> int:
        """The end of a search: nanoseconds."""
        return _timed(self.backend.clear_recur_cache)

    def _step(self, parents: list[int] | None, scope: Scope, tokens: int) -> tuple[list[int], int]:
        backend, keys = self.backend, [next(self._keys) for _ in self._envs]
        asked: list[Any] = [None] * len(keys) if parents is None else list(parents)
        spent = _timed(backend.lookup, self._envs, asked, scope) + _timed(backend.assemble)
        for layer in backend.keys_values_wm:
            layer.update(self._random(tokens), self._random(tokens))
        return keys, spent + _timed(backend.store, self._envs, keys, scope)

    def _random(self, tokens: int) -> torch.Tensor:
        if tokens not in self._tokens:
            shape = (len(self._envs), self._geometry.num_heads, tokens, self._geometry.head_dim)
            self._tokens[tokens] = torch.randn(shape)
        return self._tokens[tokens]


def _timed(call: Callable[..., Any], *arguments: Any) -> int:
    start = time.perf_counter_ns()
    call(*arguments)
    return time.perf_counter_ns() - start


def measure(geometry: Geometry, fill: str) -> dict[str, np.ndarray]:
    """Nanoseconds of every recurrent step, by backend: ``[steps]``, in the same order for all."""
    drivers = [Driver(name, geometry, fill) for name in BACKENDS]
    laps: dict[str, list[float]] = {name: [] for name in BACKENDS}
    for search in range(WARM_UP + SEARCHES):
        gc.collect()
        for driver in drivers:
            driver.root()
        rows: list[list[int]] = [[] for _ in drivers]
        for step in range(SIMULATIONS):
            for number in range(len(drivers)) if step % 2 == 0 else reversed(range(len(drivers))):
                rows[number].append(drivers[number].simulate())
        for name, row, driver in zip(BACKENDS, rows, drivers, strict=True):
            share = driver.clear() / SIMULATIONS
            if search >= WARM_UP:
                laps[name] += [lap + share for lap in row]
    return {name: np.array(each) for name, each in laps.items()}


@click.command()
@click.option("--geometry", "names", multiple=True, default=tuple(GEOMETRIES), type=click.Choice(list(GEOMETRIES)))
def main(names: tuple[str, ...]) -> None:
    """Print how many times faster a recurrent step is than legacy's, by geometry, fill and storage."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    gc.disable()
    table = Table("geometry", "fill", "legacy, us", *(f"legacy / {name}" for name in BACKENDS[1:]))
    for name, fill in itertools.product(names, FILLS):
        laps = measure(GEOMETRIES[name], fill)
        legacy = laps[BACKENDS[0]]
        ratios = [np.percentile(legacy / laps[each], (50, 25, 75)) for each in BACKENDS[1:]]
        cells = [f"{median:.1f} ({low:.1f} to {high:.1f})" for median, low, high in ratios]
        table.add_row(name, fill, f"{np.median(legacy) / 1000:,.0f}", *cells)
    console = Console(width=100)
    console.print(table)
    console.print(str(Machine.describe()), highlight=False)


if __name__ == "__main__":
    main()
