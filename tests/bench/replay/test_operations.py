"""Single operations: counted and timed on sound backends, refused on broken ones."""

import gc
from dataclasses import replace

import pytest
import torch
from faulty_backends import AnotherRow
from traces import TINY

from kvbench.measure.counters import Counts
from kvbench.replay.operations import (
    OPERATION_KINDS,
    Operation,
    WrongContentError,
    operation_config,
    prepare_operation,
    time_operations,
)
from kvcache.config import CacheConfig
from kvcache.geometry import GEOMETRIES
from kvcache.legacy import LEGACY_0_2_0, LegacyCache
from kvcache.manager import KVCacheManager
from kvcache.registry import make_backend
from kvcache.storage.private import PrivateStorage

ROWS = 4
BACKENDS = ["legacy", "legacy-0.2.0", "new:private", "new:reference"]
ROTARY = replace(TINY, positions="rotary")
FILLED_KINDS = [kind for kind in OPERATION_KINDS if kind != "hash"]


def prepared(kind, name, geometry=TINY, rows=ROWS, **config):
    return prepare_operation(kind, make_backend(name, replace(operation_config(geometry, rows), **config)))


class TestSoundBackends:
    @pytest.mark.parametrize("geometry", [TINY, ROTARY], ids=lambda each: each.positions)
    @pytest.mark.parametrize("kind", OPERATION_KINDS)
    @pytest.mark.parametrize("name", BACKENDS)
    def test_every_kind_is_found_right_and_counts_the_same_on_a_fresh_backend(self, name, kind, geometry):
        one, two = (prepared(kind, name, geometry).counts() for _ in range(2))
        assert one == two

    @pytest.mark.parametrize("rows", [1, 3])
    @pytest.mark.parametrize("kind", OPERATION_KINDS)
    @pytest.mark.parametrize("name", BACKENDS)
    def test_contents_survive_repeated_calls(self, name, kind, rows):
        operation = prepared(kind, name, rows=rows)
        for _ in range(7):
            operation.prepare()
            operation.call()
        operation.check()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("name", ["legacy", "new:private"])
    def test_a_shifted_token_is_exact_in_short_types(self, name, dtype):
        prepared("slide", name, dtype=dtype).counts()

    def test_what_is_counted_is_the_operation_and_not_what_is_done_around_it(self):
        """A store is one copy a row for the new backend: neither its preparation nor its check is counted."""
        copied = 2 * 2 * TINY.embed_dim * TINY.slid_size * 4
        for kind in ("store", "slide"):
            counts = prepared(kind, "new:private").counts()
            assert (counts.tensor_ops, counts.allocations, counts.bytes_copied) == (ROWS, 0, ROWS * copied)
        for kind in ("hash", "lookup", "clear"):
            assert prepared(kind, "new:private").counts() == Counts()
        assert prepared("assemble_equal", "new:private").counts().tensor_ops == ROWS
        assert prepared("assemble_unequal", "new:private").counts().tensor_ops == ROWS + 1  # the padding
        assert prepared("retrieve", "new:private").counts() == prepared("assemble_unequal", "new:private").counts()

    def test_a_slide_slides_each_time(self):
        """What a check leaves behind is no full window: legacy would have less to do for it."""
        store, slide = (prepared(kind, "legacy").counts() for kind in ("store", "slide"))
        moved = ROWS * 2 * TINY.num_layers  # each row's K and V of each layer are padded, and shifted
        assert slide.allocations == store.allocations + moved
        assert slide.tensor_ops > store.tensor_ops + moved

    def test_what_is_allocated_once_is_not_counted(self):
        class Lazy(KVCacheManager):
            scratch = None

            def hash_states(self, latents):
                if self.scratch is None:
                    self.scratch = torch.zeros(8)
                return super().hash_states(latents)

        assert prepare_operation("hash", Lazy(operation_config(TINY, ROWS))).counts() == Counts()

    @pytest.mark.parametrize("kind", FILLED_KINDS)
    @pytest.mark.parametrize("slots", [None, 32])
    def test_the_pool_is_full(self, kind, slots):
        backend = KVCacheManager(operation_config(TINY, ROWS, slots))
        operation = prepare_operation(kind, backend)
        assert len(backend.recur_pool) == (slots or 2 * ROWS)
        for _ in range(2):
            operation.prepare()
            assert len(backend.recur_pool) == (slots or 2 * ROWS)
            operation.call()
            assert len(backend.recur_pool) == (0 if kind == "clear" else slots or 2 * ROWS)

    @pytest.mark.parametrize("kind", ["store", "slide"])
    def test_every_stored_row_is_a_new_one(self, kind):
        backend = KVCacheManager(operation_config(TINY, ROWS))
        operation = prepare_operation(kind, backend)
        for calls in (1, 2, 3):
            operation.prepare()
            operation.call()
            assert backend.recur_pool.stats.evictions == calls * ROWS


class TestConfig:
    def test_rows_take_the_place_of_environments_and_have_two_slots_each(self):
        config = operation_config(GEOMETRIES["pong"], 3)
        assert config.geometry == replace(GEOMETRIES["pong"], env_num=3)
        assert (config.recur_pool_size, config.init_pool_size) == (6, 1)

    def test_more_slots_are_had_for_the_asking_but_never_fewer_than_two_a_row(self):
        assert operation_config(TINY, 3, 100).recur_pool_size == 100
        assert operation_config(TINY, 3, 4).recur_pool_size == 6

    def test_an_unknown_kind_is_refused_with_those_there_are(self):
        with pytest.raises(ValueError, match="unknown operation 'sort': choose one of hash, lookup, assemble_equal"):
            prepared("sort", "new")

    @pytest.mark.parametrize("kind", OPERATION_KINDS)
    def test_a_context_too_short_to_tell_the_operations_apart_is_refused(self, kind):
        with pytest.raises(ValueError, match="a context of 7 tokens is too short"):
            prepared(kind, "new", replace(TINY, context_length=7))
        prepared(kind, "new", replace(TINY, context_length=8)).counts()


# Broken backends, each named so.


def unknown(keys):
    """Keys that nothing is found under."""
    return [None if key is None else -1 for key in keys]


class OtherKeys(KVCacheManager):
    def hash_states(self, latents):
        first, *others = super().hash_states(latents)
        return [*others, first]


class FindsNothing(KVCacheManager):
    def lookup(self, envs, keys, scope):
        return super().lookup(envs, unknown(keys), scope)


class FindsNothingAsLegacyDoes(LegacyCache):
    def __init__(self, config):
        super().__init__(config, LEGACY_0_2_0)

    def _find(self, env, key, scope):
        return None


class FindsNothingFromSomeTimeOn(KVCacheManager):
    """Sound while the pool is filled and looked through for the first time."""

    lookups = 0

    def lookup(self, envs, keys, scope):
        self.lookups += scope.name == "NODE"
        return super().lookup(envs, keys if self.lookups <= 1 else unknown(keys), scope)


class DirtyPadding(KVCacheManager):
    def assemble(self):
        sizes = super().assemble()
        for row, size in enumerate(sizes):
            self.keys_values_wm.block[row, ..., : max(sizes) - size, :] = 3
        return sizes


class WrongBatchSize(KVCacheManager):
    def assemble(self):
        sizes = super().assemble()
        if max(sizes):
            self.keys_values_wm.size += 1
        return sizes


class DropsARow(KVCacheManager):
    def store(self, envs, keys, scope, priorities=None):
        super().store(envs, [*keys[:-1], keys[0]], scope, priorities)


class NoShift(KVCacheManager):
    """Says that positions change when a window slides, and does nothing about it."""

    @property
    def position_shift(self):
        return self.said

    @position_shift.setter
    def position_shift(self, shift):
        self.said = shift


class WritesASlotOnlyOnce(KVCacheManager):
    """A slot that is used again keeps what it held."""

    def __init__(self, config):
        super().__init__(replace(config, storage="private"))

    def store(self, *args):
        storage = self.recur_pool.storage
        storage.__class__ = type("Once", (PrivateStorage,), {"save_tokens": self._save})
        super().store(*args)

    @staticmethod
    def _save(storage, slot, row, first, count, shift):
        if storage._blocks[slot] is None:
            PrivateStorage.save_tokens(storage, slot, row, first, count, shift)
        storage._sizes[slot] = count


class ClearsNothing(KVCacheManager):
    def clear_recur_cache(self):
        pass


class ForgetsTheLastRowWhenCleared(KVCacheManager):
    """Clears all keys but one."""

    def clear_recur_cache(self):
        *_, last = self.recur_pool
        super().clear_recur_cache()
        self.recur_pool._slots.claim(last, None)


SLOTS = 8 * ROWS  # a store that is called twice writes over entries that are not its own

BROKEN = [
    *((OtherKeys, kind, "other keys than hash_state") for kind in ["hash"]),
    *((FindsNothing, kind, "lookup returned") for kind in FILLED_KINDS),
    *((FindsNothingAsLegacyDoes, kind, "lookup returned") for kind in FILLED_KINDS),
    *((FindsNothingFromSomeTimeOn, kind, "lookup returned") for kind in ["lookup", "store", "slide", "clear"]),
    *((AnotherRow, kind, "is not what was stored") for kind in FILLED_KINDS if kind != "clear"),
    *((DirtyPadding, kind, "row 1 of the batch is not what was stored") for kind in ["assemble_unequal", "retrieve"]),
    *((WrongBatchSize, kind, "became a batch of") for kind in FILLED_KINDS if kind != "clear"),
    *((DropsARow, kind, "lookup returned") for kind in FILLED_KINDS),
    (NoShift, "slide", "is not what was stored"),
    *((WritesASlotOnlyOnce, kind, "is not what was stored") for kind in ["store", "slide"]),
    (ClearsNothing, "clear", "a cleared pool still returns entries"),
    (ForgetsTheLastRowWhenCleared, "clear", "a cleared pool still returns entries"),
]


@pytest.mark.parametrize(("backend", "kind", "message"), BROKEN)
def test_a_broken_backend_is_refused_by_name(backend, kind, message):
    broken = backend(operation_config(TINY, ROWS, SLOTS))
    broken.name = "broken"
    with pytest.raises(WrongContentError, match=f"^broken: .*{message}"):
        prepare_operation(kind, broken).counts()


def test_a_store_that_spoils_the_batch_is_found_when_it_is_called_again():
    class SpoilsTheBatch(KVCacheManager):
        def store(self, *args):
            super().store(*args)
            self.keys_values_wm.block.add_(1)

    operation = prepare_operation("store", SpoilsTheBatch(operation_config(TINY, ROWS)))
    for _ in range(2):
        operation.prepare()
        operation.call()
    with pytest.raises(WrongContentError, match=r"^new: row 0 of the batch is not what was stored"):
        operation.check()


class FakeStopwatch:
    """Laps of 1, 2, 3, ... nanoseconds; notes when the clock ran, and whether garbage was collected meanwhile."""

    def __init__(self, log, device=False):
        self.log, self.device = log, device
        self.laps = 0
        self.collecting = []

    def time(self, call, *args):
        self.log.append("start")
        self.collecting.append(gc.isenabled())
        result = call(*args)
        self.log.append("stop")
        self.laps += 1
        lap = self.laps
        return result, (lap, (lambda: lap / 2) if self.device else None)


class TestTimes:
    @pytest.fixture
    def log(self):
        return []

    @pytest.fixture
    def operations(self, log):
        def unexpected():
            raise AssertionError("checked while it is timed")

        def noting(name):
            return Operation(
                "store",
                KVCacheManager(CacheConfig(TINY)),
                lambda: log.append(f"prepare {name}"),
                lambda: log.append(f"call {name}"),
                unexpected,
            )

        return {"a": noting("a"), "b": noting("b")}

    def test_backends_alternate_and_only_calls_are_timed(self, operations, log):
        time_operations(operations, FakeStopwatch(log), 3)
        lap = {name: [f"prepare {name}", "start", f"call {name}", "stop"] for name in "ab"}
        assert log == [*lap["a"], *lap["b"], *lap["b"], *lap["a"], *lap["a"], *lap["b"]]

    def test_laps_are_kept_call_by_call(self, operations, log):
        times = time_operations(operations, FakeStopwatch(log), 3)
        assert (times["a"].host, times["b"].host) == ([1, 4, 5], [2, 3, 6])
        assert times["a"].device == times["b"].device == []

    def test_a_device_clock_is_kept_beside_the_hosts(self, operations, log):
        times = time_operations(operations, FakeStopwatch(log, device=True), 2)
        assert (times["a"].device, times["b"].device) == ([0.5, 2.0], [1.0, 1.5])

    def test_garbage_is_not_collected_while_the_clock_runs(self, operations, log):
        stopwatch = FakeStopwatch(log)
        time_operations(operations, stopwatch, 2)
        assert stopwatch.collecting == [False] * 4
        assert gc.isenabled()

    def test_garbage_collection_is_on_again_after_an_error(self, operations, log):
        def fails():
            raise OSError("no memory")

        operations["b"] = replace(operations["b"], call=fails)
        with pytest.raises(OSError, match="no memory"):
            time_operations(operations, FakeStopwatch(log), 1)
        assert gc.isenabled()

    def test_garbage_collection_stays_off_for_a_caller_who_had_it_off(self, operations, log):
        gc.disable()
        try:
            time_operations(operations, FakeStopwatch(log), 1)
            assert not gc.isenabled()
        finally:
            gc.enable()
