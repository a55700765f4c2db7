"""Curves of imported requests, which have keys and no tree: real pools, or miniatures of them for a sample of the keys.

A large trace is sampled as SHARDS does (Waldspurger et al. 2015, "Efficient MRC Construction with SHARDS", FAST): all
requests for the keys with a low hash, in pools that are as much smaller. Where a sample has more or fewer requests than
its share, hot keys make the difference: it is made up by hits (their SHARDS-adj). Any policy may be tried so
(Waldspurger et al. 2017, "Cache Modeling and Optimization using Miniature Simulations", ATC). The error is that of the
mean of eight parts of the sample. A miniature of few slots stands for no pool: small pools are not tried in a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from kvbench.capacity.answer import smallest_within
from kvbench.capacity.bounds import Room
from kvbench.capacity.curves import BELADY, BOUNDS, ENTRIES, OUTCOMES, UNBOUNDED, Sized
from kvbench.capacity.measure import ENOUGH, Measured
from kvbench.capacity.sampling import CONFIDENCE
from kvbench.replay.content import mix_rows
from kvbench.requests.pools import PoolSize, RequestPool
from kvbench.requests.reader import RequestReader
from kvcache import EvictionStrategy

__all__ = ["KEY_POLICIES", "KeyRequests", "count_keys", "measure_keys"]

# Nothing gives a priority.
KEY_POLICIES = (*(each.value for each in EvictionStrategy if each is not EvictionStrategy.PRIORITY), BELADY, UNBOUNDED)
_PARTS = 8  # of a sample, for its error
_LEAST_SLOTS = 8 * _PARTS  # of a miniature
_SCALE = 2.0**64


class KeyRequests(Iterable[np.ndarray]):
    """The keys of imported requests, some at a time; of a large trace those of a sample.

    Args:
        reader: of the trace.
        most_requests: a trace of more is sampled, so that about as many are followed; None follows all.

    Attributes:
        share: of the keys that is followed.
        followed: requests for them.
        keys: different ones among them.
        cannot_sample: why a trace of more requests is followed whole; None where it is not.

    Raises:
        TraceError: the trace is not sound.
    """

    def __init__(self, reader: RequestReader, most_requests: int | None = None) -> None:
        self._reader = reader
        self.rows = reader.check()
        self.cannot_sample: str | None = None
        self._follow(1.0 if most_requests is None else min(1.0, most_requests / self.rows))
        if self.share < 1 and self.keys < 2 * _LEAST_SLOTS:
            self.cannot_sample = f"a sample of {self.share:.2%} has {self.keys} keys, which are too few"
            self._follow(1.0)

    def _follow(self, share: float) -> None:
        self.share, self.followed, known = share, 0, set[int]()
        self._kept = None
        self._kept = list(self._read()) if share < 1 else None
        for keys in self:
            self.followed += len(keys)
            known.update(keys.tolist())
        self.keys = len(known)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read() if self._kept is None else iter(self._kept)

    def _read(self) -> Iterator[np.ndarray]:
        for batch in self._reader.batches():
            keys = batch.column("key").to_numpy()
            yield keys if self.share == 1 else keys[mix_rows(keys) < np.uint64(self.share * _SCALE)]

    @property
    def most_entries(self) -> int:
        """Different keys of the whole trace, about."""
        return max(1, round(self.keys / self.share))

    @property
    def least_entries(self) -> int:
        """Of a pool that is tried."""
        return 1 if self.share == 1 else math.ceil(_LEAST_SLOTS / self.share)


@dataclass
class _Miniature:
    """One policy at one size, for the keys of a part of the hash's range."""

    policy: str
    slots: int

    def __post_init__(self) -> None:
        self._since: dict[int, int] = {}  # of the bounds: when each key was asked for last
        self._room = Room(self.slots)
        self._now = self.misses = 0
        is_pool = self.policy not in BOUNDS
        self._pool = RequestPool(PoolSize("", slots=self.slots), self.slots, self.policy) if is_pool else None

    def ask(self, keys: np.ndarray) -> None:
        if self._pool is not None:
            self.misses += len(keys) - sum(self._pool.ask(keys, [1] * len(keys)))
            return
        for key in keys.tolist():
            since, self._now = self._since.get(key), self._now + 1
            self._since[key] = self._now
            if since is None or not (self.policy == UNBOUNDED or self._room.keep(since, self._now)):
                self.misses += 1


def count_keys(requests: KeyRequests, lines: Sequence[Sized]) -> pd.DataFrame:
    """Outcomes of all lines, in one pass: as ``count_lines`` has them. Context mismatches are not known (NA)."""
    share = requests.share
    places = [(line.policy, size) for line in lines for size in line.sizes]
    whole = [_Miniature(policy, max(1, round(size * share))) for policy, size in places]
    parts: list[list[_Miniature]] = []
    if share < 1:
        parts = [[_Miniature(each.policy, max(1, each.slots // _PARTS)) for each in whole] for _ in range(_PARTS)]
    for keys in requests:
        for each in whole:
            each.ask(keys)
        part_of = mix_rows(keys, np.uint64(1)) % np.uint64(_PARTS)
        for number, part in enumerate(parts):
            some = keys[part_of == number]
            for each in part:
                each.ask(some)
    expected = requests.rows * share
    misses = np.array([min(each.misses / expected, 1.0) for each in whole])
    errors = np.zeros(len(places))
    if parts:
        of_parts = np.array([[each.misses / (expected / _PARTS) for each in part] for part in parts])
        errors = stdtrit(_PARTS - 1, (1 + CONFIDENCE) / 2) * of_parts.std(axis=0, ddof=1) / _PARTS**0.5
    return _table(places, requests.rows, misses, np.minimum(errors, 1.0))


def _table(places: Sequence[tuple[str, int]], lookups: int, misses: np.ndarray, errors: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame(places, columns=["policy", "size"])
    table.insert(1, "unit", ENTRIES)
    table["lookups"] = lookups
    rates = {"hit": 1 - misses, "context_mismatch": None, "stale_hit": 0.0, "miss": misses}
    for outcome in OUTCOMES:
        rate = rates[outcome]
        table[outcome] = None if rate is None else np.rint(rate * lookups).astype(int) + 0 * table["size"]
        table[f"{outcome}_rate"] = rate
        table[f"{outcome}_error"] = errors if outcome in ("hit", "miss") else 0.0
    return table


def measure_keys(requests: KeyRequests, policies: Sequence[str], entries: Sequence[int]) -> Measured:
    """As ``measure``, for pools of so many entries."""
    least, most = requests.least_entries, requests.most_entries
    table = count_keys(
        requests, [*(Sized(each, ENTRIES, entries) for each in policies), Sized("fifo", ENTRIES, [most])]
    )
    table["bytes"] = None
    points, unlimited = table.iloc[:-1], table.iloc[-1:]
    unlimited_hits, ends = int(unlimited["hit"].iloc[0]), {ENTRIES: (least, most)}
    smallest = smallest_within(lambda lines: count_keys(requests, lines), points, ends, unlimited_hits, ENOUGH)
    return Measured(points, unlimited, smallest)
