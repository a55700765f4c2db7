"""Pools of LRU of all sizes in one pass: a stack whose first n keys are those that a pool of n slots holds.

Larger pools of LRU hold all that smaller ones do (Mattson et al. 1970, "Evaluation techniques for storage
hierarchies"). One thing differs from the usual stack: a lookup that misses stores nothing. So a lookup makes a key
younger in the pools that hold it, and moves it in none. Only a store moves keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from kvbench.capacity.lines import SCOPES, Counts, Line
from kvbench.replay.content import NO_CONTEXT, extend_context, generated_context
from kvbench.replay.hierarchy import INIT, RECUR, Hierarchy
from kvbench.replay.outcomes import Outcome, RecordedContexts
from kvbench.trace.steps import Step
from kvcache import CacheConfig, Geometry

__all__ = ["LruLine", "LruStack"]

_FEW = 64  # keys that are not worth a look
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
            self._forget()
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

    def __contains__(self, key: int) -> bool:
        """Whether the largest pool holds the key."""
        return self._place(key) is not None

    def __len__(self) -> int:
        """Keys of the largest pool."""
        return self._size

    def _forget(self) -> None:
        """Number the keys anew when most have fallen off the end."""
        if len(self._numbers) > 2 * self._size + _FEW:
            held = [key for key in self._numbers if key in self]
            places = self._places[[self._numbers[key] for key in held]]
            self._numbers = {key: number for number, key in enumerate(held)}
            self._places[: len(held)] = places
            self._stack[places] = np.arange(len(held))

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
        if len(self._contexts) > 2 * len(self._keys) + _FEW:
            self._contexts = {key: each for key, each in self._contexts.items() if key in self._keys}

    def clear(self) -> None:
        self._keys.clear()
        self._contexts.clear()


class LruLine(Line):
    """LRU at each capacity of one kind of pool, in one pass; the other kind has its default size.

    With ``pool="init"`` it is right where no recurrent pool evicts, which is ``can_tell``'s to say.
    """

    def __init__(self, geometry: Geometry, capacities: Sequence[int], pool: str) -> None:
        config = CacheConfig(geometry)
        default = {INIT: config.default_init_pool_size, RECUR: config.default_recur_pool_size}
        sizes = {kind: [size] * len(capacities) for kind, size in default.items()} | {pool: list(capacities)}
        self._pools = Hierarchy(lambda kind: _Pools(sizes[kind]))
        self._sizes = len(capacities)
        self._everything = (1 << len(capacities)) - 1
        # Lookups by the sizes that find what is meant, and by those that miss.
        self._counts = {scope: Counter[tuple[int, int]]() for scope in SCOPES}

    @staticmethod
    def can_tell(geometry: Geometry, pool: str, most_recurrent: int) -> bool:
        """Whether one pass can: recurrent pools that evict are asked for what smaller init pools do not find."""
        return pool == RECUR or most_recurrent <= CacheConfig(geometry).default_recur_pool_size

    def follow(self, step: Step, recorded: RecordedContexts) -> None:
        contexts: list[_Contexts] = []
        counts = self._counts[step.scope]
        for row, (env, key) in enumerate(zip(step.envs, step.parents, strict=True)):
            if key is None:
                contexts.append({NO_CONTEXT: self._everything})
                continue
            found, missing = _find(self._pools.asked(env, step.scope), key, self._everything)
            counts[found.get(recorded.wanted(step, row), 0), missing] += 1
            contexts.append(_with(found, generated_context(key), missing) if missing else found)
        for env, key, before in zip(step.envs, step.keys, contexts, strict=False):
            stored = {extend_context(context, key): at for context, at in before.items()}
            self._pools.written(env, step.scope).store(key, stored)
        for cleared in self._pools.cleared_by(step):
            cleared.clear()

    def counts(self) -> Sequence[Counts]:
        return [
            {scope: _outcomes(self._counts[scope], 1 << number) for scope in SCOPES} for number in range(self._sizes)
        ]


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
