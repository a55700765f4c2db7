"""Single operations of a backend, each of which can be called any number of times under the same conditions."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from kvbench.measure.counters import Counts, OperationCounter
from kvbench.measure.stopwatch import Lap, Stopwatch
from kvbench.replay.fixture import Fixture, WrongContentError
from kvcache import MISS, TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, Scope, hash_state

__all__ = [
    "OPERATION_KINDS",
    "Operation",
    "OperationTimes",
    "WrongContentError",
    "operation_config",
    "prepare_operation",
    "time_operations",
]

# hash: keys of a batch of latents. lookup: all rows are found in the recurrent pool. assemble: rows of equal or unequal
# length. retrieve: lookup and assemble of unequal rows, since a backend may copy in either. store: the rows fit. slide:
# the rows' windows slide. clear: the recurrent pool is full.
OPERATION_KINDS = ("hash", "lookup", "assemble_equal", "assemble_unequal", "retrieve", "store", "slide", "clear")

SLOTS_PER_ROW = 2


@dataclass(frozen=True)
class Operation:
    """One kind of operation on one backend, ready to be called any number of times.

    Attributes:
        kind: one of ``OPERATION_KINDS``.
        backend: whose operation it is.
        prepare: called before each ``call``; it is not measured.
        call: the operation.
        check: raises ``WrongContentError`` if the last ``call`` had a wrong result.
    """

    kind: str
    backend: CacheBackend
    prepare: Callable[[], None]
    call: Callable[[], object]
    check: Callable[[], None]

    def counts(self) -> Counts:
        """Operations of torch that one call dispatches.

        Raises:
            WrongContentError: the call returned or stored wrong content.
        """
        counts = Counts()
        for _ in range(2):  # the first call may allocate memory for the later ones
            self.prepare()
            with OperationCounter() as counter:
                self.call()
            counts = counter.counts
            self.check()
        return counts


@dataclass(frozen=True)
class OperationTimes:
    """Laps of one operation, call by call.

    Attributes:
        host: nanoseconds until the work was done.
        device: nanoseconds on the device's clock; empty without one.
    """

    host: list[int]
    device: list[float]


def time_operations(
    operations: Mapping[str, Operation], stopwatch: Stopwatch, repetitions: int
) -> dict[str, OperationTimes]:
    """Time the same operation of several backends, call by call in alternating order (A B, B A, ...).

    Args:
        operations: by the name of their backend.
        stopwatch: that suits the backends' device.
        repetitions: calls of each operation.
    """
    laps: dict[str, list[Lap]] = {name: [] for name in operations}
    order = list(operations)
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for repetition in range(repetitions):
            for name in order if repetition % 2 == 0 else reversed(order):
                operations[name].prepare()
                laps[name].append(stopwatch.time(operations[name].call)[1])
    finally:
        if enabled:
            gc.enable()
    return {
        name: OperationTimes([host for host, _ in each], [read() for _, read in each if read is not None])
        for name, each in laps.items()
    }


def operation_config(
    geometry: Geometry, rows: int, slots: int | None = None, device: torch.device | str = "cpu"
) -> CacheConfig:
    """The configuration of a backend for an operation on a batch of that many rows.

    Args:
        geometry: shapes; its number of environments is replaced by ``rows``.
        rows: of the batch.
        slots: of the recurrent pool, all filled; None is two for each row.
        device: where contents live.
    """
    return CacheConfig(
        replace(geometry, env_num=rows),
        init_pool_size=1,
        recur_pool_size=max(slots or 0, SLOTS_PER_ROW * rows),
        device=device,
    )


def prepare_operation(kind: str, backend: CacheBackend) -> Operation:
    """Fill a fresh backend and make an operation on it ready.

    Args:
        kind: one of ``OPERATION_KINDS``.
        backend: built from ``operation_config``; use it for nothing else.

    Raises:
        ValueError: there is no such kind, or the context is too short for it.
        WrongContentError: the filled-in entries are not found again.
    """
    if kind not in OPERATION_KINDS:
        raise ValueError(f"unknown operation {kind!r}: choose one of {', '.join(OPERATION_KINDS)}")
    operation: Operation = getattr(_Operations(backend), kind)()
    return operation


class _Operations(Fixture):
    """Each kind of operation on a fixture, by its name."""

    def hash(self) -> Operation:
        width = self.geometry.embed_dim
        latents = torch.rand(len(self.envs), 1, width, generator=torch.Generator().manual_seed(0))
        on_device = latents.to(self.backend.config.device)
        wanted = [hash_state(latent) for latent in latents]
        found: list[Sequence[int]] = []

        def call() -> None:
            found[:] = [self.backend.hash_states(on_device)]

        def check() -> None:
            if list(found[0]) != wanted:
                raise WrongContentError(f"{self.backend.name}: hash_states returned other keys than hash_state")

        return Operation("hash", self.backend, _nothing, call, check)

    def lookup(self) -> Operation:
        keys, sizes = self.filled(self.longest_sizes())
        found: list[list[int]] = []

        def call() -> None:
            found[:] = [self.backend.lookup(self.envs, keys, Scope.NODE)]

        def check() -> None:
            if found[0] != sizes:
                raise WrongContentError(f"{self.backend.name}: lookup returned sizes {found[0]} instead of {sizes}")
            self.backend.assemble()
            self.check_batch(sizes, [0] * len(sizes))

        return Operation("lookup", self.backend, _nothing, call, check)

    def assemble_equal(self) -> Operation:
        return self._assemble("assemble_equal", self.longest_sizes())

    def assemble_unequal(self) -> Operation:
        return self._assemble("assemble_unequal", self.unequal_sizes())

    def retrieve(self) -> Operation:
        keys, sizes = self.filled(self.unequal_sizes())

        def call() -> None:
            self.backend.lookup(self.envs, keys, Scope.NODE)
            self.backend.assemble()

        return Operation("retrieve", self.backend, _nothing, call, lambda: self.check_batch(sizes, [0] * len(sizes)))

    def _assemble(self, kind: str, sizes: list[int]) -> Operation:
        keys, sizes = self.filled(sizes)
        self.check_lookup(keys, sizes)

        def check() -> None:
            self.check_batch(sizes, [0] * len(sizes))

        return Operation(kind, self.backend, _nothing, self.backend.assemble, check)

    def store(self) -> Operation:
        return self._store("store", self.geometry.slid_size - TOKENS_PER_STEP)

    def slide(self) -> Operation:
        return self._store("slide", self.geometry.slid_size)

    def _store(self, kind: str, size: int) -> Operation:
        self.filled([size] * len(self.envs))
        self.fill_batch(self.envs, size + TOKENS_PER_STEP)
        first, count = self.geometry.window(size + TOKENS_PER_STEP)
        keys: list[int] = []

        def prepare() -> None:
            keys[:] = self.new_keys(len(self.envs))

        def call() -> None:
            self.backend.store(self.envs, keys, Scope.NODE)

        def check() -> None:
            sizes = [count] * len(self.envs)
            self.check_lookup(keys, sizes)
            self.backend.assemble()
            self.check_batch(sizes, [first] * len(sizes))
            self.fill_batch(self.envs, size + TOKENS_PER_STEP)

        return Operation(kind, self.backend, prepare, call, check)

    def clear(self) -> Operation:
        keys, sizes = self.filled(self.longest_sizes())
        kept: list[int] = keys

        def prepare() -> None:
            nonlocal kept
            kept, _ = self.filled(sizes)

        def call() -> None:
            self.backend.clear_recur_cache()

        def check() -> None:
            if any(size != MISS for size in self.found_sizes(kept)):
                raise WrongContentError(f"{self.backend.name}: a cleared pool still returns entries")

        return Operation("clear", self.backend, prepare, call, check)


def _nothing() -> None:
    """Nothing to prepare."""
