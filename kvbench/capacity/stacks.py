"""Pools of LRU of all sizes in one pass: a stack whose first n keys are those that a pool of n slots holds.

Larger pools of LRU hold all that smaller ones do (Mattson et al. 1970, "Evaluation techniques for storage
hierarchies"). One thing differs from the usual stack: a lookup that misses stores nothing. So a lookup makes a key
younger in the pools that hold it, and moves it in none. Only a store moves keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from kvbench.capacity.bounds import Future
from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.outcomes import Outcome, RecordedContexts
from kvbench.trace.steps import Step
from kvcache import CacheConfig, Geometry

__all__ = ["LruStack", "lru_outcomes"]

NEVER = 2**62  # slots of a pool that finds a key which no pool holds


class LruStack:
    """The keys of pools of 1, 2, ... ``limit`` slots, as if each had got the same requests."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers: dict[int, int] = {}  # of keys
        self._places = np.zeros(64, dtype=np.int64)  # by number: of a key on the stack
        self._stack = np.zeros(64, dtype=np.int64)  # numbers of the keys
        self._times = np.zeros(64, dtype=np.int64)  # of each key's last request, by its place on the stack
        self._size = self._now = 0

    def find(self, key: int) -> int:
        """Slots of the smallest pool that finds the key; ``NEVER`` if there is none. Counts as a lookup."""
        place = self._place(key)
        if place is None:
            return NEVER
        self._now += 1
        self._times[place] = self._now
        return place + 1

    def store(self, key: int) -> None:
        """Store the key in all pools."""
        place = self._place(key)
        if place is None:
            place = self._size
            number = self._numbers.setdefault(key, len(self._numbers))
            self._size = min(self._size + 1, self._limit)
        else:
            number = self._numbers[key]
        self._now += 1
        self._make_room(max(place, number))
        # The oldest of the first n keys is what a pool of n slots evicts: it goes where the next older one was.
        if place:
            times = self._times[:place]
            moved = (times == np.minimum.accumulate(times)).nonzero()[0]
            numbers, times = self._stack[moved], times[moved]
            to = np.empty_like(moved)
            to[:-1], to[-1] = moved[1:], place
            self._stack[to], self._times[to], self._places[numbers] = numbers, times, to
        self._stack[0], self._times[0], self._places[number] = number, self._now, 0

    def clear(self) -> None:
        """Remove all keys from all pools."""
        self._numbers.clear()
        self._size = 0

    def _place(self, key: int) -> int | None:
        number = self._numbers.get(key)
        if number is None:
            return None
        place = int(self._places[number])
        return place if place < self._size else None  # what fell off the end has its place there

    def _make_room(self, index: int) -> None:
        if index >= len(self._stack):
            more = np.zeros(index + 1, dtype=np.int64)
            self._places, self._stack, self._times = (
                np.concatenate([each, more]) for each in (self._places, self._stack, self._times)
            )


# Contexts, and the sizes that have each: a bit a size.
_Contexts = dict[int, int]


class _Pools:
    """One kind's pool, of several sizes at once, and the contexts that each size has under its keys."""

    def __init__(self, sizes: Sequence[int]) -> None:
        limit = max(sizes)
        self._keys = LruStack(limit)
        bits = [(size, 1 << number) for number, size in enumerate(sizes)]
        self._finding = [sum(bit for size, bit in bits if size >= slots) for slots in range(limit + 1)]
        self._contexts: dict[int, _Contexts] = {}

    def find(self, key: int) -> tuple[int, _Contexts]:
        """Sizes that find the key, and the contexts that all sizes would find if they did."""
        slots = self._keys.find(key)
        return (0, {}) if slots == NEVER else (self._finding[slots], self._contexts[key])

    def store(self, key: int, contexts: _Contexts) -> None:
        self._keys.store(key)
        self._contexts[key] = contexts

    def clear(self) -> None:
        self._keys.clear()
        self._contexts.clear()


def lru_outcomes(
    steps: Sequence[Step], geometry: Geometry, capacities: Sequence[int], pool: str
) -> list[Counter[Outcome]] | None:
    """The outcomes of all lookups at each capacity of one kind of pool; the other kind has its default size.

    None where one pass cannot tell: recurrent pools evict, and are asked for what smaller init pools do not find.
    """
    config = CacheConfig(geometry)
    default = {INIT: config.default_init_pool_size, RECUR: config.default_recur_pool_size}
    if pool == INIT and Future(steps, RECUR).most_entries > default[RECUR]:
        return None
    sizes = {kind: [size] * len(capacities) for kind, size in default.items()} | {pool: list(capacities)}
    pools = Hierarchy(lambda kind: _Pools(sizes[kind]))
    everything = (1 << len(capacities)) - 1
    counts: Counter[tuple[int, int]] = Counter()  # of lookups, by the sizes that find what is meant, and that miss
    recorded = RecordedContexts()
    for step in steps:
        contexts: list[_Contexts] = []
        for row, (env, key) in enumerate(zip(step.envs, step.parents, strict=True)):
            if key is None:
                contexts.append({NO_CONTEXT: everything})
            else:
                found, missing = _find(pools.asked(env, step.scope), key, everything)
                counts[found.get(recorded.wanted(step, row), 0), missing] += 1
                contexts.append(_with(found, generated_context(key), missing) if missing else found)
        recorded.store(step)
        for env, key, before in zip(step.envs, step.keys, contexts, strict=False):
            stored = {extend_context(context, key): at for context, at in before.items()}
            pools.written(env, step.scope).store(key, stored)
        for cleared in pools.cleared_by(step):
            cleared.clear()
    return [_outcomes(counts, 1 << number) for number in range(len(capacities))]


def _find(pools: Sequence[tuple[str, _Pools]], key: int, everything: int) -> tuple[_Contexts, int]:
    """What pools find, and the sizes that miss; a pool is asked for what the ones before did not find."""
    found: _Contexts = {}
    missing = everything
    for _, pool in pools:
        finding, contexts = pool.find(key)
        finding &= missing
        if finding:
            for context, at in contexts.items():
                if at & finding:
                    found = _with(found, context, at & finding)
            missing &= ~finding
        if not missing:
            break
    return found, missing


def _with(contexts: _Contexts, context: int, at: int) -> _Contexts:
    return contexts | {context: contexts.get(context, 0) | at}


def _outcomes(counts: Counter[tuple[int, int]], size: int) -> Counter[Outcome]:
    """Those of one size, by its bit."""
    outcomes: Counter[Outcome] = Counter()
    for (meant, missing), lookups in counts.items():
        outcome = Outcome.MISS if missing & size else Outcome.HIT if meant & size else Outcome.CONTEXT_MISMATCH
        outcomes[outcome] += lookups
    return outcomes
