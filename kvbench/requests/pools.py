"""Real pools that are asked for keys: what is found, evicted and held, and how long the bookkeeping takes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from kvbench.requests.contents import OBJECTS, Entry, SizedStorage, contents_for
from kvbench.requests.reader import RequestReader
from kvbench.results.requests import PoolResult, PoolTimes
from kvcache import EntryInfo, KVCachePool

__all__ = ["PoolSize", "RequestPool", "TimedPool", "replay_requests"]

Known = Iterable[EntryInfo | None]
_NOTHING_KNOWN: Known = repeat(None)
_SLICE = 1_024  # requests that are timed together: the clock takes as long as a request


@dataclass(frozen=True)
class PoolSize:
    """How much a pool holds: ``slots`` entries, or entries of ``limit`` in all, in the unit of their sizes."""

    label: str
    slots: int | None = None
    limit: int | None = None

    def slots_for(self, reader: RequestReader) -> int:
        """Slots that are enough: more than there are requests are never used."""
        most = self.slots if self.limit is None else self.limit // reader.smallest_size
        return max(1, min(most or 1, reader.rows))


class RequestPool:
    """A pool whose every hit is checked. What it misses it stores, unless that is larger than the pool."""

    def __init__(self, size: PoolSize, slots: int, eviction: str, storage: str = OBJECTS) -> None:
        self.size, self.eviction, self.storage = size, eviction, storage
        self._sized = SizedStorage(storage, slots, size.limit)
        self._contents = contents_for(storage)
        self.pool = KVCachePool(slots, eviction, storage=self._sized)
        self.stale_hits = self.too_large = self.requested_size = self.hit_size = 0

    @property
    def sees_entries(self) -> bool:
        """Whether the policy uses what is known of an entry."""
        return self.pool.sees_entries

    def ask(self, keys: np.ndarray, sizes: Sequence[int], known: Known = _NOTHING_KNOWN) -> list[bool]:
        """Whether each request finds what its key stands for, in order; ``known`` is of each entry."""
        get, put, match, limit = self.pool.get, self.pool.set, self._contents.match, self.size.limit
        hits: list[bool] = []
        for key, size, content, info in zip(keys.tolist(), sizes, self._contents.of(keys), known, strict=False):
            found = get(key)
            if found is None:
                if limit is None or size <= limit:
                    put(key, Entry(content, size), None, info)
                else:
                    self.too_large += 1
                hits.append(False)
            else:
                is_right = match(found, content)
                hits.append(is_right)
                self.stale_hits += not is_right
        asked = np.asarray(sizes, dtype=np.int64)
        self.requested_size += int(asked.sum())
        self.hit_size += int(asked[hits].sum())
        return hits

    def result(self, times: PoolTimes | None) -> PoolResult:
        """What the pool has counted."""
        stats = self.pool.stats
        return PoolResult(
            eviction=self.eviction,
            storage=self.storage,
            capacity=self.size.label,
            slots=self.size.slots,
            size_limit=self.size.limit,
            requests=stats.total_queries,
            hit=stats.hits - self.stale_hits,
            stale_hit=self.stale_hits,
            context_mismatch=None,
            miss=stats.misses,
            too_large=self.too_large,
            evictions=stats.evictions,
            requested_size=self.requested_size,
            hit_size=self.hit_size,
            most_held_size=self._sized.most_held,
            entries=len(self.pool),
            bytes_reserved=self.pool.bytes_reserved,
            bookkeeping_us=times,
        )


class TimedPool:
    """The same pool with nothing to store or check: its bookkeeping alone, request by request."""

    def __init__(self, size: PoolSize, slots: int, eviction: str, timer: Callable[[], int] = time.perf_counter_ns):
        self._limit = size.limit
        storage: Any = OBJECTS if size.limit is None else SizedStorage(OBJECTS, slots, size.limit)
        self._pool = KVCachePool(slots, eviction, storage=storage)
        self._timer = timer
        self._laps = array("d")  # ns a request, of each slice

    @property
    def sees_entries(self) -> bool:
        """As of a ``RequestPool``."""
        return self._pool.sees_entries

    def ask(self, keys: np.ndarray, sizes: Sequence[int], known: Known = _NOTHING_KNOWN) -> None:
        """Ask and store, as ``RequestPool`` does."""
        numbers = keys.tolist()
        entries = list(zip((Entry(None, size) for size in sizes), known, strict=False))
        limit = self._limit if self._limit is not None else max(sizes, default=0)
        for first in range(0, len(numbers), _SLICE):
            asked, stored = numbers[first : first + _SLICE], entries[first : first + _SLICE]
            start = self._timer()
            self._ask(asked, stored, limit)
            self._laps.append((self._timer() - start) / len(asked))

    def _ask(self, keys: Sequence[int], entries: Sequence[tuple[Entry, EntryInfo | None]], limit: int) -> None:
        get, put = self._pool.get, self._pool.set
        for key, (entry, info) in zip(keys, entries, strict=True):
            if get(key) is None and entry.size <= limit:
                put(key, entry, None, info)

    @staticmethod
    def together(pools: Sequence[TimedPool]) -> PoolTimes | None:
        """Percentiles over all slices of all repetitions, us a request; None without any."""
        laps = np.concatenate([np.frombuffer(each._laps) for each in pools]) / 1_000 if pools else np.empty(0)
        if not len(laps):
            return None
        p25, p50, p75, p99 = (float(each) for each in np.percentile(laps, (25, 50, 75, 99)))
        return PoolTimes(p25=p25, p50=p50, p75=p75, p99=p99, samples=len(laps), requests_of_a_sample=_SLICE)


def replay_requests(
    reader: RequestReader,
    pools: Iterable[RequestPool | TimedPool],
    rows: int | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Ask all pools for the requests of a file, the first ``rows`` of them, in one pass over it.

    Raises:
        TraceError: the file is not sound.
    """
    pools, done = list(pools), 0
    tells_parents = any(pool.sees_entries for pool in pools)
    for batch in reader.batches(rows):
        keys, sizes = batch.column("key").to_numpy(), batch.column("size").to_pylist()
        parents = [EntryInfo(parent=each) for each in batch.column("parent").to_pylist()] if tells_parents else []
        for pool in pools:
            pool.ask(keys, sizes, parents if pool.sees_entries else _NOTHING_KNOWN)
        done += len(keys)
        progress(done)
