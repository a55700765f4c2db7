"""Single operations of a backend, each on a footing that stays the same however often it is called."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from kvbench.measure.counters import Counts, OperationCounter
from kvbench.measure.stopwatch import Lap, Stopwatch
from kvbench.replay.content import Contents
from kvcache import MISS, TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, RecurrentMissError, Scope, hash_state

__all__ = [
    "OPERATION_KINDS",
    "Operation",
    "OperationTimes",
    "WrongContentError",
    "operation_config",
    "prepare_operation",
    "time_operations",
]

# hash: keys of a batch of latents. lookup: every row found in the recurrent pool. assemble: of rows that are equally
# long, or not. retrieve: lookup and assemble of unequal rows, whichever of the two does a backend's copying. store: of
# rows that fit; slide: of rows whose window slides. clear: of a full recurrent pool.
OPERATION_KINDS = ("hash", "lookup", "assemble_equal", "assemble_unequal", "retrieve", "store", "slide", "clear")

SLOTS_PER_ROW = 2
_LARGEST = 64  # contents are integers in [-64, 64): exact in every dtype, sums with a position's shift included


class WrongContentError(AssertionError):
    """A backend did not return what was stored: whatever it cost, it is no result."""


@dataclass(frozen=True)
class Operation:
    """One kind of operation on one backend, ready to be called any number of times.

    Attributes:
        kind: one of ``OPERATION_KINDS``.
        backend: whose operation it is.
        prepare: called before each ``call``, outside of what is measured.
        call: the operation.
        check: looks at what the last ``call`` did.
    """

    kind: str
    backend: CacheBackend
    prepare: Callable[[], None]
    call: Callable[[], object]
    check: Callable[[], None]

    def counts(self) -> Counts:
        """What one call asks of torch.

        Raises:
            WrongContentError: the call returned or stored something else than it should have.
        """
        counts = Counts()
        for _ in range(2):  # the first call may allocate what later ones use again
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
    """What a backend is built from for an operation on a batch of that many rows.

    Args:
        geometry: shapes; its number of environments is replaced by ``rows``.
        rows: of the batch.
        slots: of the recurrent pool, all of them filled; None is two for each row.
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
        backend: built from ``operation_config``; it belongs to the operation from now on.

    Raises:
        ValueError: there is no such kind, or the context is too short for it.
        WrongContentError: already what was filled in is not found again.
    """
    if kind not in OPERATION_KINDS:
        raise ValueError(f"unknown operation {kind!r}: choose one of {', '.join(OPERATION_KINDS)}")
    operation: Operation = getattr(_Footing(backend), kind)()
    return operation


class _Footing:
    """A backend whose recurrent pool is full, and a batch of rows that can be looked up in it."""

    def __init__(self, backend: CacheBackend) -> None:
        config = backend.config
        geometry = config.geometry
        if geometry.slid_size < 1 + 2 * TOKENS_PER_STEP:
            raise ValueError(f"a context of {geometry.context_length} tokens is too short to tell the operations apart")
        self.backend = backend
        self.geometry = geometry
        self.envs = list(range(geometry.env_num))
        self._slots = config.recur_pool_size or config.default_recur_pool_size
        contents = Contents(geometry)
        backend.position_shift = contents.position_shift(config.device, config.dtype)
        shape = (len(self.envs), geometry.num_layers, 2, geometry.num_heads, geometry.context_length, geometry.head_dim)
        generator = torch.Generator().manual_seed(0)
        source = torch.randint(-_LARGEST, _LARGEST, shape, generator=generator, dtype=torch.int8)
        self._source = source.to(device=config.device, dtype=config.dtype)
        self._next_key = 1

    # The operations.

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
        keys, sizes = self._filled(self._longest_sizes())
        found: list[list[int]] = []

        def call() -> None:
            found[:] = [self.backend.lookup(self.envs, keys, Scope.NODE)]

        def check() -> None:
            if found[0] != sizes:
                raise WrongContentError(f"{self.backend.name}: lookup returned sizes {found[0]} instead of {sizes}")
            self.backend.assemble()
            self._check_batch(sizes, [0] * len(sizes))

        return Operation("lookup", self.backend, _nothing, call, check)

    def assemble_equal(self) -> Operation:
        return self._assemble("assemble_equal", self._longest_sizes())

    def assemble_unequal(self) -> Operation:
        return self._assemble("assemble_unequal", self._unequal_sizes())

    def retrieve(self) -> Operation:
        keys, sizes = self._filled(self._unequal_sizes())

        def call() -> None:
            self.backend.lookup(self.envs, keys, Scope.NODE)
            self.backend.assemble()

        return Operation("retrieve", self.backend, _nothing, call, lambda: self._check_batch(sizes, [0] * len(sizes)))

    def _assemble(self, kind: str, sizes: list[int]) -> Operation:
        keys, sizes = self._filled(sizes)
        self._look_up(keys, sizes)

        def check() -> None:
            self._check_batch(sizes, [0] * len(sizes))

        return Operation(kind, self.backend, _nothing, self.backend.assemble, check)

    def store(self) -> Operation:
        return self._store("store", self.geometry.slid_size - TOKENS_PER_STEP)

    def slide(self) -> Operation:
        return self._store("slide", self.geometry.slid_size)

    def _store(self, kind: str, size: int) -> Operation:
        self._filled([size] * len(self.envs))
        self._batch_of(self.envs, size + TOKENS_PER_STEP)
        first, count = self.geometry.window(size + TOKENS_PER_STEP)
        keys: list[int] = []

        def prepare() -> None:
            keys[:] = self._new_keys(len(self.envs))

        def call() -> None:
            self.backend.store(self.envs, keys, Scope.NODE)

        def check() -> None:
            sizes = [count] * len(self.envs)
            self._look_up(keys, sizes)
            self.backend.assemble()
            self._check_batch(sizes, [first] * len(sizes))
            self._batch_of(self.envs, size + TOKENS_PER_STEP)

        return Operation(kind, self.backend, prepare, call, check)

    def clear(self) -> Operation:
        keys, sizes = self._filled(self._longest_sizes())
        kept: list[int] = keys

        def prepare() -> None:
            nonlocal kept
            kept, _ = self._filled(sizes)

        def call() -> None:
            self.backend.clear_recur_cache()

        def check() -> None:
            if any(size != MISS for size in self._found(kept)):
                raise WrongContentError(f"{self.backend.name}: a cleared pool still returns entries")

        return Operation("clear", self.backend, prepare, call, check)

    # Their footing.

    def _longest_sizes(self) -> list[int]:
        return [self.geometry.slid_size] * len(self.envs)

    def _unequal_sizes(self) -> list[int]:
        return [self.geometry.slid_size - TOKENS_PER_STEP * (env % 3) for env in self.envs]

    def _new_keys(self, count: int) -> list[int]:
        first, self._next_key = self._next_key, self._next_key + count
        return list(range(first, first + count))

    def _filled(self, sizes: list[int]) -> tuple[list[int], list[int]]:
        """Fill the pool; the last entries of it are rows of those sizes, by their keys."""
        rows = len(self.envs)
        for _ in range(rows, self._slots, rows):
            # Other contents than those looked for: what a slot held before must not pass for what it holds.
            self._put(self.envs, self.geometry.slid_size, negated=True)
        keys = [0] * rows
        for size in sorted(set(sizes)):
            envs = [env for env in self.envs if sizes[env] == size]
            for env, key in zip(envs, self._put(envs, size), strict=True):
                keys[env] = key
        self._look_up(keys, sizes)
        return keys, sizes

    def _put(self, envs: list[int], size: int, negated: bool = False) -> list[int]:
        """Store a context of that size for each of the environments: their keys."""
        self._batch_of(envs, size, negated)
        keys = self._new_keys(len(envs))
        self.backend.store(envs, keys, Scope.NODE)
        return keys

    def _batch_of(self, envs: list[int], size: int, negated: bool = False) -> None:
        """Make the batch hold the first tokens of each environment's source, as if a model had appended them."""
        self.backend.lookup(envs, [None] * len(envs), Scope.ROOT)
        self.backend.assemble()
        tokens = self._source[envs, ..., :size, :]
        if negated:
            tokens = -tokens
        for number, layer in enumerate(self.backend.keys_values_wm):
            layer.update(tokens[:, number, 0], tokens[:, number, 1])

    def _found(self, keys: list[int]) -> list[int]:
        try:
            return list(self.backend.lookup(self.envs, keys, Scope.NODE))
        except RecurrentMissError:  # LightZero 0.2.0 would have ended here
            return list(self.backend.keys_values_wm_size_list)

    def _look_up(self, keys: list[int], sizes: list[int]) -> None:
        found = self._found(keys)
        if found != sizes:
            raise WrongContentError(
                f"{self.backend.name}: entries of {sizes} tokens were stored, and lookup returned {found}"
            )

    def _check_batch(self, sizes: list[int], firsts: list[int]) -> None:
        """The batch holds, behind its padding, each environment's source from token ``first`` on."""
        batch, longest = self.backend.keys_values_wm, max(sizes)
        found = list(self.backend.keys_values_wm_size_list)
        if found != sizes or batch.size != longest:
            raise WrongContentError(
                f"{self.backend.name}: rows of {sizes} tokens became a batch of {batch.size}, rows of {found}"
            )
        block = batch.block
        for env, (size, first) in enumerate(zip(sizes, firsts, strict=True)):
            wanted = self._source[env, ..., first : first + size, :]
            if first and self.backend.position_shift is not None:
                wanted = wanted + self.backend.position_shift
            start = self.backend.row_start(env)
            same = torch.equal(block[env, ..., start : start + size, :], wanted)
            padding = block[env, ..., :start, :], block[env, ..., start + size : longest, :]
            if not same or any(bool(each.any()) for each in padding):
                raise WrongContentError(f"{self.backend.name}: row {env} of the batch is not what was stored")


def _nothing() -> None:
    """Nothing to prepare."""
