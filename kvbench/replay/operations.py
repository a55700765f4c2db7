"""Single operations of a backend, each of which can be called any number of times under the same conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from kvbench.measure.counters import Counts, OperationCounter
from kvbench.measure.stopwatch import Lap, Stopwatch, no_collection, split_laps
from kvbench.replay.fixture import Fixture, WrongContentError
from kvcache import MISS, TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, Scope, hash_state

__all__ = [
    "OPERATION_KINDS", "Operation", "OperationTimes", "WrongContentError", "operation_config", "prepare_operation",
    "time_operations",
]  # fmt: skip

# hash: keys of a batch of latents. lookup: all rows are found in the recurrent pool. assemble: rows of equal or unequal
# length. retrieve: lookup and assemble of unequal rows, since a backend may copy in either. store: the rows fit. slide:
# the rows' windows slide. clear: the recurrent pool is full.
OPERATION_KINDS = ("hash", "lookup", "assemble_equal", "assemble_unequal", "retrieve", "store", "slide", "clear")

SLOTS_PER_ROW = 2


@dataclass(frozen=True)
class Operation:
    """One kind of operation on one backend, ready to be called any number of times.

    Attributes:
        prepare: called before each ``call``; it is not measured.
        check: raises ``WrongContentError`` if the last ``call`` had a wrong result.
    """

    kind: str
    backend: CacheBackend
    prepare: Callable[[], None]
    call: Callable[[], object]
    check: Callable[[], None]

    def counts(self) -> Counts:
        """Operations of torch that one call dispatches. Raises WrongContentError where its result is wrong."""
        for _ in range(2):  # the first call may allocate memory for the later ones
            self.prepare()
            with OperationCounter() as counter:
                self.call()
            self.check()
        return counter.counts


@dataclass(frozen=True)
class OperationTimes:
    """Laps of one operation, call by call: nanoseconds until the work was done, and on the device's clock, if any."""

    host: list[int]
    device: list[float]


def time_operations(
    operations: Mapping[str, Operation], stopwatch: Stopwatch, repetitions: int
) -> dict[str, OperationTimes]:
    """Time the same operation of several backends, by name, call by call in alternating order (A B, B A, ...)."""
    laps: dict[str, list[Lap]] = {name: [] for name in operations}
    order = list(operations)
    with no_collection():
        for repetition in range(repetitions):
            for name in order if repetition % 2 == 0 else reversed(order):
                operations[name].prepare()
                laps[name].append(stopwatch.time(operations[name].call)[1])
    return {name: OperationTimes(*split_laps(each)) for name, each in laps.items()}


def operation_config(
    geometry: Geometry, rows: int, slots: int | None = None, device: torch.device | str = "cpu"
) -> CacheConfig:
    """The configuration of a backend for an operation on a batch of that many rows, each an environment.

    The recurrent pool has ``slots``: at least, and by default, two for each row. All of them will be filled.
    """
    slots = max(slots or 0, SLOTS_PER_ROW * rows)
    shape = replace(geometry, env_num=rows)
    return CacheConfig(shape, init_pool_size=1, recur_pool_size=slots, eviction_strategy="fifo", device=device)


def prepare_operation(kind: str, backend: CacheBackend) -> Operation:
    """Fill a fresh backend, built from ``operation_config``, and make an operation on it ready.

    Raises:
        ValueError: there is no such kind, or the context is too short for it.
        WrongContentError: the filled-in entries are not found again.
    """
    if kind not in OPERATION_KINDS:
        raise ValueError(f"unknown operation {kind!r}: choose one of {', '.join(OPERATION_KINDS)}")
    return Operation(kind, backend, *getattr(_Operations(backend), kind)())


# What an operation's ``prepare``, ``call`` and ``check`` are.
_Parts = tuple[Callable[[], None], Callable[[], object], Callable[[], None]]


class _Operations(Fixture):
    """The parts of each kind of operation, by its name."""

    def hash(self) -> _Parts:
        width = self.geometry.embed_dim
        latents = torch.rand(len(self.envs), 1, width, generator=torch.Generator().manual_seed(0))
        on_device = latents.to(self.backend.config.device)
        wanted = [hash_state(latent) for latent in latents]
        found: list[Sequence[int]] = []

        def call() -> None:
            found[:] = [self.backend.hash_states(on_device)]

        def check() -> None:
            self.require(list(found[0]) == wanted, "hash_states returned other keys than hash_state")

        return _nothing, call, check

    def lookup(self) -> _Parts:
        sizes = self.longest_sizes
        keys = self.filled(sizes)
        found: list[list[int]] = []

        def call() -> None:
            found[:] = [self.backend.lookup(self.envs, keys, Scope.NODE)]

        def check() -> None:
            self.require(found[0] == sizes, f"lookup returned sizes {found[0]} instead of {sizes}")
            self.backend.assemble()
            self.check_batch(sizes)

        return _nothing, call, check

    def assemble_equal(self) -> _Parts:
        self.filled(self.longest_sizes)
        return _nothing, self.backend.assemble, lambda: self.check_batch(self.longest_sizes)

    def assemble_unequal(self) -> _Parts:
        self.filled(self.unequal_sizes)
        return _nothing, self.backend.assemble, lambda: self.check_batch(self.unequal_sizes)

    def retrieve(self) -> _Parts:
        keys = self.filled(self.unequal_sizes)

        def call() -> None:
            self.backend.lookup(self.envs, keys, Scope.NODE)
            self.backend.assemble()

        return _nothing, call, lambda: self.check_batch(self.unequal_sizes)

    def store(self) -> _Parts:
        return self._store(self.geometry.slid_size - TOKENS_PER_STEP)

    def slide(self) -> _Parts:
        return self._store(self.geometry.slid_size)

    def _store(self, size: int) -> _Parts:
        self.filled([size] * len(self.envs))
        self.fill_batch(self.envs, size + TOKENS_PER_STEP)
        first, count = self.geometry.window(size + TOKENS_PER_STEP)
        sizes = [count] * len(self.envs)
        keys: list[int] = []

        def prepare() -> None:
            keys[:] = self.new_keys(len(self.envs))

        def call() -> None:
            self.backend.store(self.envs, keys, Scope.NODE)

        def check() -> None:
            self.check_lookup(keys, sizes)
            self.backend.assemble()
            self.check_batch(sizes, first)
            self.fill_batch(self.envs, size + TOKENS_PER_STEP)

        return prepare, call, check

    def clear(self) -> _Parts:
        keys = self.filled(self.longest_sizes)

        def prepare() -> None:
            keys[:] = self.filled(self.longest_sizes)

        def call() -> None:
            self.backend.clear_recur_cache()

        def check() -> None:
            still = [size for size in self.found_sizes(keys) if size != MISS]
            self.require(not still, "a cleared pool still returns entries")

        return prepare, call, check


def _nothing() -> None:
    """Nothing to prepare."""
