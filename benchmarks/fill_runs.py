"""Searches of every fill, on two backends in turns: recurrent steps, the forward over their batches, and contents."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from claim_traces import filled

from kvbench.measure.stopwatch import HostStopwatch
from kvbench.replay.content import Contents
from kvbench.replay.drive import FillerContent, Latents
from kvbench.replay.forward import AttendingContent
from kvbench.replay.lockstep import take_turns
from kvbench.replay.passes import verify_replay
from kvcache import CacheBackend, CacheConfig, Geometry, make_backend

__all__ = ["AGAINST", "LIGHTZERO", "SIMULATIONS", "STORAGES", "Cell", "Plan", "make", "measure", "verify"]

LIGHTZERO = "lightzero"
AGAINST = ("legacy-0.2.0", "legacy", LIGHTZERO)
STORAGES = ("new:paged", "new:paged-resident", "new:slab", "new:private")
SIMULATIONS = 25
INIT_SLOTS = 2  # LightZero 0.2.0's: only the last root is looked up


@dataclass(frozen=True)
class Plan:
    """What is measured of every cell.

    Attributes:
        seeds: of the traces.
        searches: that count, of each seed.
        forward: whether the attention over the batches is timed instead of the steps.
        processor_time: whether time counts only while this process runs: others on the machine then add less to it.
    """

    seeds: Sequence[int] = (0, 1, 2)
    searches: int = 4
    forward: bool = False
    processor_time: bool = False

    @property
    def stopwatch(self) -> HostStopwatch:
        return HostStopwatch(time.process_time_ns if self.processor_time else time.perf_counter_ns)


@dataclass(frozen=True)
class Cell:
    """One geometry and fill on one backend, over all seeds.

    Attributes:
        longest: tokens of the longest context that was extended.
        shortest: tokens of the shortest of the batches' longest contexts.
        baseline_us: median microseconds of the baseline's recurrent step, with its share of the clear.
        us: of the backend's.
        ratio: baseline / backend, of steps in turns: quartiles. With ``forward`` it is backend / baseline.
        by_seed: the median of each seed.
        strided_bytes: most bytes of one batch that do not lie head by head; None where no forward was made.
    """

    geometry: str
    fill: str
    backend: str
    shortest: int
    longest: int
    baseline_us: float
    us: float
    ratio: tuple[float, float, float]
    by_seed: list[float]
    strided_bytes: int | None = None


def make(name: str, config: CacheConfig) -> CacheBackend:
    """A backend, or LightZero 0.2.0's own methods."""
    if name != LIGHTZERO:
        return make_backend(name, config)
    from lightzero_methods import LightZeroMethods  # in tox -e lightzero

    return LightZeroMethods(config)


def _config(geometry: Geometry) -> CacheConfig:
    return CacheConfig(replace(geometry, num_simulations=SIMULATIONS), init_pool_size=INIT_SLOTS)


def measure(geometry: Geometry, fill: str, pair: tuple[str, str], plan: Plan) -> Cell:
    """Time a baseline and a backend in turns, each seed with fresh ones. A seed's first search is not counted."""
    laps: list[np.ndarray] = []
    longest: list[int] = []
    strided: list[int] = []
    forward = plan.forward
    for seed in plan.seeds:
        clocks, contents = _run(geometry, fill, pair, seed, plan)
        found = [content.laps if forward else clocks[name].steps for name, content in contents.items()]
        laps.append(np.array(found, dtype=float)[:, SIMULATIONS:])
        longest += clocks[pair[1]].longest[SIMULATIONS:]
        strided += contents[pair[1]].strided if forward else []
    ratios = [each[1] / each[0] if forward else each[0] / each[1] for each in laps]
    low, middle, high = np.percentile(np.concatenate(ratios), (25, 50, 75)).tolist()
    baseline_us, us = (np.median(np.concatenate(laps, axis=1), axis=1) / 1000).tolist()
    by_seed = [float(np.median(each)) for each in ratios]
    return Cell(
        geometry.name, fill, pair[1], min(longest), max(longest), baseline_us, us, (low, middle, high), by_seed,
        max(strided) if forward else None,
    )  # fmt: skip


def _run(geometry: Geometry, fill: str, pair: tuple[str, str], seed: int, plan: Plan) -> Any:
    config, contents = _config(geometry), Contents(geometry)
    stopwatch = plan.stopwatch
    drivers: dict[str, Any] = {}
    for name in pair:
        backend = make(name, config)
        backend.position_shift = contents.position_shift("cpu", config.dtype)
        drivers[name] = AttendingContent(backend, stopwatch) if plan.forward else FillerContent(backend)
    steps = filled(config.geometry, fill, seed, plan.searches + 1)
    return take_turns(steps, drivers, Latents(geometry.embed_dim, "cpu"), stopwatch), drivers


def verify(geometry: Geometry, fill: str, name: str, seed: int, searches: int = 1) -> tuple[int, list[str]]:
    """Check every context that a backend returns, token by token: lookups, and what was wrong."""
    config, contents = _config(geometry), Contents(geometry)
    backend = make(name, config)
    backend.position_shift = contents.position_shift("cpu", config.dtype)
    steps = filled(config.geometry, fill, seed, searches)
    found = verify_replay(backend, steps, contents, Latents(geometry.embed_dim, "cpu"))
    faults = found.faults + [f"{outcome.value}: {count}" for outcome, count in found.outcomes.total.items()
                             if outcome.value != "hit" and count]  # fmt: skip
    return found.outcomes.total.total(), faults
