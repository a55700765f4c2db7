"""What shows only after many searches: root lookups that go wrong, and init pools and clears that leak or get slower.

``endurance`` asks for nodes of one search without end; here searches begin and end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from kvbench.measure.host import BytecodeMeter, held_bytes, traced_memory
from kvbench.measure.memory import HostMemory
from kvbench.measure.stopwatch import no_collection
from kvbench.replay.content import Contents
from kvbench.replay.drive import FillerContent, Latents, run_step
from kvbench.replay.endurance import TRIALS, Laps, Make, find_aged, grown_by, within
from kvbench.replay.fixture import WrongContentError
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvbench.replay.stream import just_call
from kvbench.trace.steps import Step
from kvcache import CacheBackend, CacheConfig, Geometry

__all__ = ["INIT_SLOTS", "MANY", "search_counts"]

INIT_SLOTS, RECUR_SLOTS = 4, 8  # few, so that init pools evict
MANY = 1_100  # searches, at least: what is wrong in every 1,000th root lookup is seen
TIMED, HELD = 8, 2  # laps


def search_counts(make: Make, geometry: Geometry, steps: Sequence[Step]) -> dict[str, float]:
    """What searches make a backend hold and execute more and more; ``steps`` of some searches are repeated.

    Raises WrongContentError: a context was not what it should be, or calls get slower.
    """
    searches = 1 + max(step.search for step in steps)

    def made() -> CacheBackend:
        config = CacheConfig(geometry, init_pool_size=INIT_SLOTS, recur_pool_size=RECUR_SLOTS, eviction_strategy="fifo")
        return _prepared(make(config))

    # First, since what grows may outlive a backend.
    grown = {"bytecodes_grown": _slower(made, steps, searches), **_memory_grown(made, steps, searches)}
    backend = made()
    latents = Latents(geometry.embed_dim, "cpu")
    checked = verify_replay(backend, [*steps] * -(-MANY // searches), Contents(geometry), latents, counted_searches=0)
    if checked.faults:
        raise WrongContentError(f"{backend.name}: {checked.faults[0]}")
    outcomes = {each.value.replace(" ", "_"): checked.outcomes.total[each] for each in Outcome}
    evictions = sum(checked.evictions.values())
    return {**outcomes, "evictions": evictions, **grown}


def _prepared(backend: CacheBackend) -> CacheBackend:
    config = backend.config
    backend.position_shift = Contents(config.geometry).position_shift("cpu", config.dtype)
    return backend


class _Searches:
    """The same searches again and again, on a backend whose contexts are not looked at."""

    def __init__(self, backend: CacheBackend, steps: Sequence[Step], meter: Callable[..., Any] = just_call) -> None:
        self._backend = backend
        self._content = FillerContent(backend)
        self._steps = list(Latents(backend.config.geometry.embed_dim, "cpu").of_steps(steps))
        self.run(2, meter)  # the second time the pools begin as in all later ones

    def run(self, laps: int, meter: Callable[..., Any] = just_call) -> None:
        for _ in range(laps):
            for step, given in self._steps:
                run_step(self._backend, step, given, self._content, meter)


def _memory_grown(made: Callable[[], CacheBackend], steps: Sequence[Step], searches: int) -> dict[str, float]:
    memory = HostMemory()
    counted = within(memory)
    running = _Searches(counted("make", made), steps, counted)
    before = memory.held
    running.run(1, counted)
    tensors = memory.held - before
    with traced_memory():
        running = _Searches(made(), steps)
        running.run(1)  # counters above 256 are objects of their own
        held = [held_bytes()]
        for _ in range(HELD):
            running.run(1)
            held.append(held_bytes())
    steady = min(after - before for before, after in pairwise(held))  # what is made once for all is no leak
    return {"tensor_bytes_grown": grown_by(tensors, searches), "host_bytes_grown": grown_by(steady, searches)}


def _slower(made: Callable[[], CacheBackend], steps: Sequence[Step], searches: int) -> int:
    """Bytecodes that a search has more than one long before. Raises WrongContentError: calls get slower."""
    first, fault = dict[str, float](), None
    for _ in range(TRIALS):
        backend = made()
        running = _Searches(backend, steps)
        before, clock = _bytecodes(running), Laps()
        with no_collection():
            running.run(TIMED, clock)
        grown = grown_by(_bytecodes(running) - before, searches)
        first = first or clock.quarter(0)
        fault = find_aged(first, clock.quarter(3))
        if fault is None:
            return grown
    raise WrongContentError(f"{backend.name}, search after search: {fault}")


def _bytecodes(running: _Searches) -> int:
    meter = BytecodeMeter()
    running.run(1, meter)
    return meter.bytecodes
