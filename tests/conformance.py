"""What every storage and every backend must do, written once.

One more of either passes all of it by a subclass with one attribute, in its own test file::

    class TestPrivate(CopyingStorageConformance):
        storage = "private"

    class TestLegacy(BackendConformance):
        backend = "legacy"
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbench.measure.counters import OperationCounter
from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.config import CacheConfig
from kvcache.geometry import Geometry
from kvcache.hashing import hash_state
from kvcache.keys_values import KeysValues
from kvcache.pool import KVCachePool
from kvcache.registry import make_backend
from kvcache.stats import CacheStats

LAYERS, HEADS, TOKENS, HEAD_DIM = 2, 2, 6, 3
ENTRY_BYTES = LAYERS * 2 * HEADS * TOKENS * HEAD_DIM * 4


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, type and every bit."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def entry(
    value: int, size: int = 4, layers=LAYERS, heads=HEADS, tokens=TOKENS, head_dim=HEAD_DIM, **options
) -> KeysValues:
    """One row, all elements different and known by ``value``; small integers, so that sums are exact."""
    kv = KeysValues(1, heads, tokens, heads * head_dim, layers, **options)
    kv.block.copy_(torch.arange(kv.block.numel()).view(kv.block.shape) + 1000 * value)
    kv.size = size
    return kv


def live(kv: KeysValues) -> Tensor:
    """The live tokens ``[B, L, 2, H, size, D]``, read layer by layer: the block is not trusted to be them."""
    return torch.stack([torch.stack(layer.get(), dim=1) for layer in kv], dim=1)


def poison(kv: KeysValues) -> None:
    """Write into every tensor of ``kv``, in place, as a careless caller or a transformer would."""
    for tensor in kv.layer_tensors():
        tensor.fill_(float("nan"))


def replace_layer_tensors(kv: KeysValues) -> None:
    """Put other tensors of the same content into the layers, as LightZero's own code does, and spoil the old ones."""
    for layer in kv._keys_values:
        for cache in (layer._k_cache, layer._v_cache):
            old, cache._cache = cache._cache, cache._cache.clone()
            old.fill_(float("nan"))


class StorageConformance:
    """What a pool relies on, for every storage."""

    storage: str

    def pool(self, size: int = 3, **options) -> KVCachePool:
        return KVCachePool(size, storage=self.storage, **options)

    @pytest.mark.parametrize("size", range(TOKENS + 1))
    def test_what_is_stored_comes_back(self, size):
        pool = self.pool()
        pool.set("key", entry(1, size))
        found = pool.get("key")
        assert found.size == size
        assert same_bits(live(found), live(entry(1, size)))

    def test_entries_do_not_mix(self):
        pool = self.pool()
        for value in range(3):
            pool.set(value, entry(value, size=value + 1))
        for value in (2, 0, 1):
            assert same_bits(live(pool.get(value)), live(entry(value, size=value + 1)))

    @pytest.mark.parametrize(("before", "after"), [(6, 2), (2, 6), (3, 0)])
    def test_an_update_replaces_content_and_size_in_the_same_slot(self, before, after):
        pool = self.pool()
        slot = pool.set("key", entry(1, before))
        assert pool.set("key", entry(2, after)) == slot
        assert same_bits(live(pool.get("key")), live(entry(2, after)))
        assert len(pool) == 1
        assert pool.stats.evictions == 0

    def test_a_full_pool_gives_the_victims_slot_and_nothing_of_its_content(self):
        pool = self.pool(2)
        victim = pool.set("a", entry(1, 6))
        pool.set("b", entry(2))
        assert pool.set("c", entry(3, 2)) == victim
        assert pool.get("a") is None
        assert same_bits(live(pool.get("b")), live(entry(2)))
        assert same_bits(live(pool.get("c")), live(entry(3, 2)))

    def test_clear_forgets_every_key_and_the_pool_works_on(self):
        pool = self.pool(2)
        pool.set("a", entry(1))
        pool.set("b", entry(2))
        pool.clear()
        assert len(pool) == 0
        assert pool.get("a") is None
        assert pool.get("b") is None
        pool.set("b", entry(3, 1))
        assert same_bits(live(pool.get("b")), live(entry(3, 1)))
        assert pool.get("a") is None

    def test_replaced_layer_tensors_are_what_is_stored(self):
        pool = self.pool()
        kv = entry(1)
        replace_layer_tensors(kv)
        pool.set("key", kv)
        assert same_bits(live(pool.get("key")), live(entry(1)))

    def test_separate_layer_tensors_can_be_stored(self):
        source = entry(1)
        pairs = [(layer._k_cache._cache.clone(), layer._v_cache._cache.clone()) for layer in source]
        pool = self.pool()
        pool.set("key", KeysValues.from_layers(pairs, source.size))
        assert same_bits(live(pool.get("key")), live(source))

    @pytest.mark.parametrize(("first", "count"), [(0, 6), (0, 3), (2, 3), (2, 0), (5, 1)])
    @pytest.mark.parametrize("shifted", [False, True])
    def test_tokens_are_saved_from_a_row_and_loaded_into_another(self, first, count, shifted):
        pool, row = self.pool(), entry(1).block[0]
        shift = torch.arange(LAYERS * 2 * HEADS * count * HEAD_DIM).view(LAYERS, 2, HEADS, count, HEAD_DIM).float()
        kept = row.clone()
        pool.save_tokens("key", row, first, count, shift if shifted else None)
        assert same_bits(row, kept)

        expected = torch.full_like(row, -1.0)
        to = TOKENS - count
        expected[:, :, :, to:] = row[:, :, :, first : first + count] + (shift if shifted else 0)
        target = torch.full_like(row, -1.0)
        pool.storage.load_tokens(pool.find("key"), target, to)
        assert same_bits(target, expected)
        assert pool.storage.size(pool.find("key")) == pool.get("key").size == count

    def test_saved_tokens_do_not_change_with_the_row(self):
        pool, row = self.pool(), entry(1).block[0]
        pool.save_tokens("key", row, 0, 4, None)
        row.fill_(float("nan"))
        assert same_bits(live(pool.get("key")), live(entry(1)))

    def test_loading_leaves_the_entry_alone(self):
        pool, row = self.pool(), torch.zeros_like(entry(1).block[0])
        pool.set("key", entry(1))
        pool.storage.load_tokens(pool.find("key"), row, 0)
        row.fill_(float("nan"))
        assert same_bits(live(pool.get("key")), live(entry(1)))

    def test_whole_values_and_saved_tokens_can_take_each_others_place(self):
        pool = self.pool(1)
        pool.set("a", entry(1, 6))
        pool.save_tokens("b", entry(2).block[0], 0, 2, None)
        assert same_bits(live(pool.get("b")), live(entry(2, 2)))
        pool.set("a", entry(3, 5))
        assert same_bits(live(pool.get("a")), live(entry(3, 5)))

    def test_reserved_bytes_cover_what_is_stored(self):
        pool = self.pool()
        assert pool.bytes_reserved == 0
        pool.set("a", entry(1, TOKENS))
        pool.set("b", entry(2, TOKENS))
        assert 2 * ENTRY_BYTES <= pool.bytes_reserved <= 3 * ENTRY_BYTES

    @pytest.mark.parametrize("strategy", ["fifo", "lru", "priority"])
    @pytest.mark.parametrize("write", ["set", "save_tokens"])
    @pytest.mark.parametrize("key", ["old", "new"])
    def test_a_failing_write_leaves_no_key_without_its_content(self, strategy, write, key, monkeypatch, caplog):
        pool = self.pool(2, eviction_strategy=strategy)
        pool.set("old", entry(1))
        pool.set("other", entry(2))
        owned_write = {"set": "write", "save_tokens": "save_tokens"}[write]
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(pool.storage, owned_write, self._write_half_and_fail(pool, owned_write))
            self._write(pool, write, key, entry(3))
        with caplog.at_level("WARNING"):
            assert pool.get(key) is None
        assert "a change of the cache was interrupted" in caplog.text
        assert key not in pool
        assert len(pool) == 0  # nobody can say what else was written

        slots = {self._write(pool, write, name, entry(value)) for value, name in enumerate("ab", 4)}
        assert slots == {0, 1}
        assert [same_bits(live(pool.get(name)), live(entry(value))) for value, name in enumerate("ab", 4)] == [True] * 2

    @staticmethod
    def _write(pool, write, key, kv):
        if write == "set":
            return pool.set(key, kv)
        pool.integrity.begin()
        slot = pool.save_tokens(key, kv.block[0], 0, kv.size, None)
        pool.integrity.end()
        return slot

    @staticmethod
    def _write_half_and_fail(pool, name):
        genuine = getattr(pool.storage, name)

        def fail(slot, *arguments):
            genuine(slot, *arguments)
            raise MemoryError("the device is full")

        return fail


class CopyingStorageConformance(StorageConformance):
    """What every storage but ``reference`` promises as well: its entries are private copies."""

    def test_an_entry_does_not_change_with_what_was_stored(self):
        pool, stored = self.pool(), entry(1)
        pool.set("key", stored)
        poison(stored)
        stored.size = 1
        assert same_bits(live(pool.get("key")), live(entry(1)))

    def test_an_entry_does_not_change_with_the_tensors_that_replaced_the_stored_ones(self):
        pool, stored = self.pool(), entry(1)
        replace_layer_tensors(stored)
        pool.set("key", stored)
        poison(stored)
        assert same_bits(live(pool.get("key")), live(entry(1)))

    @pytest.mark.parametrize("replaced", [False, True])
    def test_an_entry_does_not_change_with_what_was_returned(self, replaced):
        pool = self.pool()
        pool.set("key", entry(1))
        returned = pool.get("key")
        if replaced:
            replace_layer_tensors(returned)
        poison(returned)
        returned.reset()
        assert same_bits(live(pool.get("key")), live(entry(1)))

    def test_what_was_returned_does_not_change_with_the_entry(self):
        pool = self.pool(1)
        pool.set("key", entry(1))
        returned = pool.get("key")
        pool.set("key", entry(2, 6))
        assert same_bits(live(returned), live(entry(1)))
        pool.set("another key in the same slot", entry(3, 6))
        assert same_bits(live(returned), live(entry(1)))
        pool.clear()
        pool.set("after a clear", entry(4, 6))
        assert same_bits(live(returned), live(entry(1)))

    def test_two_answers_are_independent_of_each_other(self):
        pool = self.pool()
        pool.set("key", entry(1))
        first, second = pool.get("key"), pool.get("key")
        poison(first)
        assert same_bits(live(second), live(entry(1)))

    def test_what_was_returned_can_be_extended(self):
        pool = self.pool()
        pool.set("key", entry(1, size=4))
        returned = pool.get("key")
        returned[0].update(torch.ones(1, HEADS, 2, HEAD_DIM), torch.ones(1, HEADS, 2, HEAD_DIM))
        assert returned.size == 6
        assert pool.get("key").size == 4

    def test_nothing_dead_is_returned(self):
        """Positions beyond the live tokens are zero, never a former owner's content."""
        pool = self.pool(1)
        pool.set("a", entry(1, TOKENS))
        pool.set("b", entry(2, 2))
        assert not pool.get("b").block[..., 2:, :].any()

    def test_an_entry_carries_no_autograd_graph(self):
        pool = self.pool()
        learned = [
            tuple(torch.ones(1, HEADS, TOKENS, HEAD_DIM, requires_grad=True) * 2 for _ in range(2))
            for _ in range(LAYERS)
        ]
        pool.set("key", KeysValues.from_layers(learned, 4))
        assert not pool.get("key").block.requires_grad

    @pytest.mark.parametrize("value", [object(), None, torch.zeros(2), [1]])
    def test_what_cannot_be_copied_is_a_type_error_that_names_the_way_out(self, value):
        pool = self.pool()
        with pytest.raises(TypeError, match="storage='reference'"):
            pool.set("key", value)
        assert len(pool) == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            entry(9, layers=LAYERS + 1),
            entry(9, heads=HEADS + 1),
            entry(9, heads=1),  # would broadcast
            entry(9, tokens=TOKENS + 1),
            entry(9, head_dim=HEAD_DIM + 1),
            entry(9, head_dim=1),  # would broadcast
            entry(9, dtype=torch.float64),
            KeysValues(2, HEADS, TOKENS, HEADS * HEAD_DIM, LAYERS),
        ],
        ids=["layers", "heads", "one head", "tokens", "head_dim", "head_dim of one", "dtype", "two rows"],
    )
    @pytest.mark.parametrize("key", ["old", "new"])
    def test_what_does_not_fit_is_a_value_error_and_changes_nothing(self, wrong, key):
        pool = self.pool(2)
        pool.set("old", entry(1))
        pool.set("other", entry(2, 6))
        before = pool.stats.to_dict()
        with pytest.raises(ValueError, match=r"this pool holds entries of|an entry is one row"):
            pool.set(key, wrong)
        assert pool.stats.to_dict() == before
        assert set(pool) == {"old", "other"}
        assert same_bits(live(pool.get("old")), live(entry(1)))
        assert same_bits(live(pool.get("other")), live(entry(2, 6)))

    def test_a_row_of_another_shape_or_kind_is_refused(self):
        pool = self.pool()
        pool.set("key", entry(1))
        pool.storage.check_row(entry(2).block[0])
        for wrong in (entry(2, heads=1), entry(2, tokens=TOKENS + 1), entry(2, dtype=torch.float64)):
            with pytest.raises(ValueError, match=r"this pool holds entries of .*; got \[L, 2, H, T, D\]"):
                pool.storage.check_row(wrong.block[0])

    def test_clearing_keeps_slot_memory(self):
        pool, kv, inserts = self.pool(50), entry(1), 50
        allocations = []
        for _ in range(10):
            with OperationCounter() as counter:
                for key in range(inserts):
                    pool.set(key, kv)
                pool.clear()
            allocations.append(counter.counts.allocations)
        assert 0 < allocations[0] <= inserts
        assert allocations[1:] == [0] * 9
        assert pool.slots_allocated <= inserts
        self.check_memory_kept(pool, inserts)

    def check_memory_kept(self, pool: KVCachePool, inserts: int) -> None:
        """A cleared pool holds on to what those entries took."""
        assert pool.bytes_reserved == inserts * ENTRY_BYTES

    def test_clearing_a_pool_that_is_never_filled_touches_the_same_slots_again(self):
        pool = self.pool(50)
        for clear in range(10):
            for key in range(5):
                pool.set((clear, key), entry(key))
            pool.clear()
        assert pool.slots_allocated <= 5

    def test_evictions_and_updates_allocate_nothing(self):
        pool, kv = self.pool(4), entry(1)
        for key in range(4):
            pool.set(key, kv)
        with OperationCounter() as counter:
            for key in range(40):
                pool.set(key % 9, kv)
        assert counter.counts.allocations == 0


# The reference for backends: a context is a plain list, a token one tensor [L, 2, H, D]; nothing is overwritten.
Context = list[Tensor]


class NaiveCache:
    """A cache as SPEC 3.3 describes it, without slots, sizes or batches in one tensor."""

    def __init__(self, geometry: Geometry, position_shift: Tensor | None) -> None:
        self.geometry = geometry
        self.shift = position_shift
        self.init: list[dict[int, Context]] = [{} for _ in range(geometry.env_num)]
        self.recur: dict[int, Context] = {}
        self.rows: list[Context | None] = []
        self.queries: Counter[tuple[str, bool]] = Counter()

    def lookup(self, envs, keys, scope) -> list[int]:
        self.rows = [[] if key is None else self._find(env, key, scope) for env, key in zip(envs, keys, strict=True)]
        return [MISS if row is None else len(row) for row in self.rows]

    def _find(self, env: int, key: int, scope: Scope) -> Context | None:
        found = self.init[env].get(key)
        self.queries[f"env_{env}", found is not None] += 1
        if scope is Scope.NODE:
            if found is None:
                found = self.recur.get(key)
                self.queries["recur", found is not None] += 1
            self.queries["hierarchy", found is not None] += 1
        return None if found is None else list(found)

    def padded(self, starts: list[int]) -> list[Context]:
        """All rows as long as the longest, by zeros in front of where they start and behind."""
        longest = max(len(row) for row in self.rows)
        geometry = self.geometry
        nothing = torch.zeros(geometry.num_layers, 2, geometry.num_heads, geometry.head_dim)
        return [
            [nothing] * start + row + [nothing] * (longest - start - len(row))
            for start, row in zip(starts, self.rows, strict=True)
        ]

    def append(self, tokens: list[Context]) -> None:
        for row, new in zip(self.rows, tokens, strict=True):
            row.extend(new)

    def store(self, envs, keys, scope) -> None:
        context_length = self.geometry.context_length
        if context_length <= 2:
            return
        for env, key, row in zip(envs, keys, self.rows, strict=True):
            kept = list(row)
            if len(kept) >= context_length - 1:
                kept = kept[2 : context_length - 1]
                if self.shift is not None:
                    kept = [token + self.shift[:, :, :, position] for position, token in enumerate(kept)]
            (self.recur if scope is Scope.NODE else self.init[env])[key] = kept

    def clear_recur_cache(self) -> None:
        self.recur.clear()

    def clear_init_caches(self) -> None:
        for pool in self.init:
            pool.clear()

    def clear_all(self) -> None:
        self.clear_init_caches()
        self.clear_recur_cache()


class Twins:
    """A backend and the naive cache, driven alike; every answer and every batch of the two is compared bit for bit.

    Args:
        backend: the one on trial.
        recurrent_miss: what a recurrent lookup with misses raises, if it does.
        may_forget: whether the backend, which has pools then, may have evicted what the naive cache still has. What
            it finds must be right all the same.
        poisons: whether the batch is overwritten after it was stored. Otherwise a backend may keep its content.
    """

    def __init__(
        self,
        backend: CacheBackend,
        recurrent_miss: type[Exception] | None = None,
        may_forget: bool = False,
        poisons: bool = True,
    ) -> None:
        self.backend = backend
        self.geometry = geometry = backend.config.geometry
        if geometry.positions == "absolute" and geometry.slid_size >= 0:
            shape = (geometry.num_layers, 2, geometry.num_heads, geometry.slid_size, geometry.head_dim)
            count = torch.Size(shape).numel()
            backend.position_shift = torch.arange(1, count + 1, dtype=torch.float32).view(shape)
        self.naive = NaiveCache(geometry, backend.position_shift)
        self.recurrent_miss = recurrent_miss
        self.may_forget = may_forget
        self.poisons = poisons
        self._serial = itertools.count(1)

    def infer(
        self, scope: Scope, rows, appended: int = 2, supplied: int = 1, replace_tensors: bool = False
    ) -> list[int]:
        """One inference of a batch of ``(env, parent's key or None, new key)``; returns what was looked up."""
        envs, parents, new_keys = (list(column) for column in zip(*rows, strict=True))
        sizes = self.look_up(envs, parents, scope)
        owned = []
        for row, size in enumerate(sizes):
            if size == MISS:
                tokens = self._tokens(supplied)
                self.naive.rows[row] = list(tokens)
                owned.append(self._as_keys_values(tokens))
                self.backend.supply(row, owned[-1])
        self.assemble()
        for kv in owned:
            poison(kv)
        self.append(appended)
        if replace_tensors:
            replace_layer_tensors(self.backend.keys_values_wm)
        self.store(envs, new_keys, scope)
        # The next batch, or the transformer, writes over this one: no entry may notice.
        if self.poisons:
            poison(self.backend.keys_values_wm)
        return sizes

    def look_up(self, envs, parents, scope) -> list[int]:
        if self.may_forget:
            # Where an init pool has lost a key, the recurrent pool's content of that key is the right one.
            for pool, known in zip(self.backend.init_pools, self.naive.init, strict=True):
                for key in [key for key in known if key not in pool]:
                    del known[key]
        wanted = self.naive.lookup(envs, parents, scope)
        missed = [row for row, size in enumerate(wanted) if size == MISS]
        if self.recurrent_miss and scope is Scope.NODE and missed:
            with pytest.raises(self.recurrent_miss) as raised:
                self.backend.lookup(envs, parents, scope)
            assert raised.value.rows == missed
            sizes = list(self.backend.keys_values_wm_size_list)  # a replay catches the error and goes on
        else:
            sizes = list(self.backend.lookup(envs, parents, scope))
        if self.may_forget:
            assert all(size in (MISS, want) for size, want in zip(sizes, wanted, strict=True)), (sizes, wanted)
        else:
            assert sizes == wanted
        return sizes

    def assemble(self) -> None:
        assert list(self.backend.assemble()) == [len(row) for row in self.naive.rows]
        self.compare_batches(self._padded())

    def _padded(self) -> list[Context]:
        return self.naive.padded([self.backend.row_start(row) for row in range(len(self.naive.rows))])

    def append(self, count: int) -> None:
        """What the model does: ``count`` new tokens in every row and every layer."""
        padded = self._padded()
        new = [self._tokens(count) for _ in self.naive.rows]
        stacked = _stacked(new)
        for index, layer in enumerate(self.backend.keys_values_wm):
            layer.update(stacked[:, index, 0], stacked[:, index, 1])
        self.naive.append(new)
        self.compare_batches([row + tokens for row, tokens in zip(padded, new, strict=True)])

    def store(self, envs, keys, scope) -> None:
        batch = self.backend.keys_values_wm
        tensors = batch.layer_tensors()
        before = [tensor.clone() for tensor in tensors], [layer.size for layer in batch]
        self.backend.store(envs, keys, scope)
        assert self.backend.keys_values_wm is batch
        assert all(now is then for now, then in zip(batch.layer_tensors(), tensors, strict=True))
        assert all(same_bits(now, then) for now, then in zip(tensors, before[0], strict=True))
        assert [layer.size for layer in batch] == before[1]
        self.naive.store(envs, keys, scope)

    def compare_batches(self, rows: list[Context]) -> None:
        batch = self.backend.keys_values_wm
        assert batch.size == len(rows[0])
        assert batch.num_samples == len(rows)
        if rows[0]:
            assert same_bits(live(batch), _stacked(rows))

    def clear(self, what: str) -> None:
        getattr(self.backend, what)()
        getattr(self.naive, what)()

    def compare_statistics(self) -> None:
        summary = self.backend.get_stats_summary()
        counters = summary["init_pools"] | {"recur": summary["recur_pool"], "hierarchy": summary["hierarchy"]}
        assert set(counters) == {f"env_{env}" for env in range(self.geometry.env_num)} | {"recur", "hierarchy"}
        for name, counted in counters.items():
            assert (counted["hits"], counted["misses"]) == tuple(
                self.naive.queries[name, hit] for hit in (True, False)
            ), name

    def _tokens(self, count: int) -> Context:
        geometry = self.geometry
        shape = (geometry.num_layers, 2, geometry.num_heads, geometry.head_dim)
        width = torch.Size(shape).numel()
        return [torch.arange(width, dtype=torch.float32).view(shape) + width * next(self._serial) for _ in range(count)]

    def _as_keys_values(self, tokens: Context) -> KeysValues:
        """As a model makes it: beyond the live tokens there may be anything."""
        geometry = self.geometry
        kv = KeysValues(1, geometry.num_heads, geometry.context_length, geometry.embed_dim, geometry.num_layers)
        poison(kv)
        stacked = _stacked([tokens])
        for index, layer in enumerate(kv):
            layer.update(stacked[:, index, 0], stacked[:, index, 1])
        return kv


def _stacked(rows: list[Context]) -> Tensor:
    """Rows of tokens as ``[B, L, 2, H, tokens, D]``."""
    return torch.stack([torch.stack(row, dim=3) for row in rows])


ENVS = 3
GEOMETRY = Geometry("small", 2, 2, 6, context_length=8, env_num=ENVS, num_simulations=5, positions="absolute")
GEOMETRIES = [
    replace(GEOMETRY, context_length=context_length, positions=positions)
    for context_length in (3, 4, 7, 8)
    for positions in ("absolute", "rotary")
]
GEOMETRY_IDS = [f"{geometry.positions}-{geometry.context_length}" for geometry in GEOMETRIES]

# More slots than any test below writes.
AMPLE = 512

OTHER_SHIFTS = {"factor": lambda shift: 3 * shift, "none": lambda shift: None, "a little": lambda shift: shift - 1}

_KEY = st.integers(0, 4)
_CLEARS = ("clear_recur_cache", "clear_init_caches", "clear_all")


def scripts(max_rows: int = ENVS + 2, init_keys=_KEY, recur_keys=_KEY):
    """What a search may ask of a backend: inferences ``(scope, rows, appended, supplied)`` and clears, by name."""

    def inference(scope):
        new = init_keys if scope is Scope.ROOT else recur_keys
        parent = st.one_of(st.none(), init_keys, recur_keys)
        rows = st.lists(st.tuples(st.integers(0, ENVS - 1), parent, new), min_size=1, max_size=max_rows)
        return st.tuples(st.just(scope), rows, st.integers(1, 2), st.integers(1, 6))

    infer = st.one_of(inference(Scope.ROOT), inference(Scope.NODE))
    return st.lists(st.one_of(infer, infer, infer, st.sampled_from(_CLEARS)), min_size=6, max_size=24)


def run_script(twins: Twins, script) -> None:
    for step in script:
        if isinstance(step, str):
            twins.clear(step)
        else:
            scope, rows, appended, supplied = step
            # A context of T - 2 tokens is the longest that is ever looked up: the next one has slid.
            twins.infer(scope, rows, appended, min(supplied, twins.geometry.context_length - 2))


class BackendConformance:
    """The batch interface, for every backend, as long as no slot was overwritten."""

    backend: str
    recurrent_miss: type[Exception] | None = None
    pads_behind = False  # a resident batch's rows begin at its first position
    poisons = True

    def config(self, geometry: Geometry = GEOMETRY, **options) -> CacheConfig:
        return CacheConfig(geometry, **{"init_pool_size": AMPLE, "recur_pool_size": AMPLE} | options)

    def twins(self, geometry: Geometry = GEOMETRY, **options) -> Twins:
        backend = make_backend(self.backend, self.config(geometry, **options))
        return Twins(backend, self.recurrent_miss, poisons=self.poisons)

    def test_it_goes_by_its_name(self):
        assert make_backend(self.backend, self.config()).name == self.backend

    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=GEOMETRY_IDS)
    @settings(max_examples=25)
    @given(script=scripts())
    def test_any_search_gets_what_the_naive_cache_gives(self, geometry, script):
        twins = self.twins(geometry)
        run_script(twins, script)
        twins.compare_statistics()

    @pytest.mark.parametrize("geometry", GEOMETRIES, ids=GEOMETRY_IDS)
    @pytest.mark.parametrize("scope", Scope)
    @pytest.mark.parametrize("supplied", [1, 2])
    def test_a_context_that_would_overflow_slides(self, geometry, scope, supplied):
        supplied = min(supplied, geometry.context_length - 2)  # a longer one has slid
        twins = self.twins(geometry)
        sizes = []
        for step in range(8):
            sizes += twins.infer(scope, [(0, step, step + 1)], supplied=supplied)
        grown = [supplied + 2 * step for step in range(1, 8)]
        slid = geometry.context_length - 3
        unslid = [size for size in grown if size < geometry.context_length - 1]
        assert sizes[1 : 1 + len(unslid)] == unslid
        assert sizes[1 + len(unslid)] == slid

    def test_a_context_of_one_token_less_than_would_slide_is_kept_whole(self):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(0, 1, 2)], supplied=4)
        assert twins.infer(Scope.ROOT, [(0, 2, 3)]) == [6]
        assert twins.infer(Scope.ROOT, [(0, 3, 4)]) == [5]

    def test_unequal_contexts_are_padded_by_zeros(self):
        twins = self.twins()
        for env, size in enumerate((1, 3, 2)):
            twins.infer(Scope.ROOT, [(env, None, 7)], appended=size)
        assert twins.look_up([0, 1, 2], [7, 7, 7], Scope.ROOT) == [1, 3, 2]
        twins.assemble()
        batch = live(twins.backend.keys_values_wm)
        assert batch.shape[4] == 3
        for row, size in enumerate((1, 3, 2)):
            start = 0 if self.pads_behind else 3 - size
            assert batch[row, ..., start : start + size, :].all()
            assert not batch[row, ..., :start, :].any()
            assert not batch[row, ..., start + size :, :].any()

    @pytest.mark.parametrize("parents", [[None, None, None], [None, 7, None], [7, None, 8]])
    def test_first_steps_start_empty_and_are_no_query(self, parents):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(env, None, key) for env in range(ENVS) for key in (7, 8)])
        twins.backend.reset_stats()
        sizes = twins.infer(Scope.ROOT, [(env, parent, 9) for env, parent in enumerate(parents)])
        assert [size == EMPTY for size in sizes] == [parent is None for parent in parents]
        counted = twins.backend.get_stats_summary()["init_pools"].values()
        assert sum(pool["total_queries"] for pool in counted) == sum(parent is not None for parent in parents)

    def test_a_root_is_stored_for_its_environment_only(self):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(1, None, 7)])
        assert twins.infer(Scope.ROOT, [(0, 7, 10), (1, 7, 10), (2, 7, 10)]) == [MISS, 2, MISS]
        assert twins.infer(Scope.NODE, [(0, 7, 11), (1, 7, 11), (2, 7, 11)]) == [MISS, 2, MISS]

    def test_a_node_is_found_from_every_environment_but_by_no_root(self):
        twins = self.twins()
        twins.infer(Scope.NODE, [(1, None, 7)])
        assert twins.infer(Scope.NODE, [(env, 7, 8) for env in range(ENVS)]) == [2, 2, 2]
        assert twins.infer(Scope.ROOT, [(env, 7, 8) for env in range(ENVS)]) == [MISS] * 3

    def test_a_node_lookup_asks_the_init_pool_first(self):
        twins = self.twins()
        twins.infer(Scope.NODE, [(0, None, 7)], appended=2)
        twins.infer(Scope.ROOT, [(0, None, 7)], appended=1)
        assert twins.infer(Scope.NODE, [(0, 7, 8), (1, 7, 9)]) == [1, 2]

    def test_storing_again_replaces(self):
        twins = self.twins()
        for scope in Scope:
            twins.infer(scope, [(0, None, 7)], appended=2)
            twins.infer(scope, [(0, None, 7)], appended=1)
            assert twins.infer(scope, [(0, 7, 8)]) == [1]

    def test_of_two_rows_under_one_key_the_last_stays(self):
        twins = self.twins()
        twins.infer(Scope.NODE, [(0, 5, 7), (1, None, 7)])
        assert twins.infer(Scope.NODE, [(2, 7, 8)]) == [2]

    def test_looking_up_leaves_the_entry_as_it_was(self):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(0, None, 7)])
        for key in range(20, 24):
            assert twins.infer(Scope.NODE, [(0, 7, key), (0, 7, key + 10)]) == [2, 2]

    @pytest.mark.parametrize("rows", [1, 2])
    def test_a_batch_may_have_fewer_rows_than_there_are_environments(self, rows):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(env, None, 7) for env in range(ENVS)])
        for start in range(ENVS):
            envs = [(start + row) % ENVS for row in range(rows)]
            assert twins.infer(Scope.NODE, [(env, 7, 8 + env) for env in envs]) == [2] * rows
        assert twins.infer(Scope.ROOT, [(env, 7, 9) for env in range(ENVS)]) == [2] * ENVS

    @pytest.mark.parametrize("parent", [None, 99])
    def test_a_batch_may_have_more_rows_than_there_are_environments(self, parent):
        """As when values are computed anew for old data: nothing of it was cached."""
        twins = self.twins()
        twins.infer(Scope.ROOT, [(0, None, 7)])
        rows = [(row % ENVS, parent, 100 + row) for row in range(4 * ENVS)]
        assert twins.infer(Scope.ROOT, rows) == [EMPTY if parent is None else MISS] * len(rows)
        # The batch cache has grown; smaller batches go on as before.
        assert twins.infer(Scope.ROOT, [(0, 7, 8), (1, 101, 8), (2, 111, 8)])[0] == 2
        assert twins.infer(Scope.ROOT, [(2, 111, 9)]) == [2 if parent is None else 3]

    def test_a_batch_may_have_several_leaves_of_each_environment(self):
        """They are found, whatever their parents are: the root, one another's parent, or nodes of unequal lengths."""
        twins = self.twins(replace(GEOMETRY, context_length=12))
        twins.infer(Scope.ROOT, [(env, None, env) for env in range(ENVS)])
        parents = [[env] * 3 for env in range(ENVS)]
        for step in range(5):
            leaves = range(3 - (step == 4))  # where simulations end, there are fewer
            new = {(env, leaf): 100 * (step + 1) + 10 * env + leaf for leaf in leaves for env in range(ENVS)}
            rows = [(env, parents[env][leaf], key) for (env, leaf), key in new.items()]
            assert MISS not in twins.infer(Scope.NODE, rows)
            # Of each three new nodes one is looked up twice, and one is not: its sister is asked for again.
            parents = [[new[env, 0], new[env, 0], parents[env][1]] for env in range(ENVS)]

    def test_of_two_leaves_that_are_one_state_either_is_found(self):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(env, None, env) for env in range(ENVS)])
        for _ in range(2):
            twins.infer(Scope.NODE, [(env, env, 50 + env) for _ in range(2) for env in range(ENVS)])
        assert twins.infer(Scope.NODE, [(env, 50 + env, 60 + env) for _ in range(2) for env in range(ENVS)]) == [4] * 6

    def test_a_context_length_of_two_stores_nothing(self):
        twins = self.twins(replace(GEOMETRY, context_length=2))
        for scope in Scope:
            twins.infer(scope, [(0, None, 7), (1, None, 8)], appended=1)
            assert twins.look_up([0, 1], [7, 8], scope) == [MISS, MISS]
        assert twins.backend.bytes_reserved["init"] == twins.backend.bytes_reserved["recur"] == 0

    def test_rows_whose_tensors_were_replaced_are_stored_as_they_are_now(self):
        twins = self.twins()
        first = [(0, None, 1), (1, 0, 1), (2, 0, 1)]
        assert twins.infer(Scope.ROOT, first, replace_tensors=True) == [EMPTY, MISS, MISS]
        for step, sizes in enumerate([[2, 3, 3], [4, 5, 5], [6, 5, 5], [5, 5, 5]], 1):
            rows = [(env, step, step + 1) for env in range(ENVS)]
            assert twins.infer(Scope.ROOT, rows, replace_tensors=True) == sizes

    @pytest.mark.parametrize(
        ("clear", "root_left", "node_left"),
        [("clear_recur_cache", True, False), ("clear_init_caches", False, True), ("clear_all", False, False)],
    )
    def test_clears_forget_what_they_name_and_keep_the_statistics(self, clear, root_left, node_left):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(env, None, 7) for env in range(ENVS)])
        twins.infer(Scope.NODE, [(0, 7, 8)])
        twins.clear(clear)
        assert [size != MISS for size in twins.look_up([0, 1, 2], [7, 7, 7], Scope.ROOT)] == [root_left] * ENVS
        assert [size != MISS for size in twins.look_up([0], [8], Scope.NODE)] == [node_left]
        twins.compare_statistics()

    def test_statistics_count_one_query_of_the_hierarchy_for_each_node_lookup(self):
        twins = self.twins()
        twins.infer(Scope.ROOT, [(0, None, 7)])
        twins.infer(Scope.NODE, [(0, 7, 8), (1, 7, 9), (1, None, 10)])
        summary = twins.backend.get_stats_summary()
        assert summary["stats_enabled"] is True
        assert (summary["hierarchy"]["hits"], summary["hierarchy"]["misses"]) == (1, 1)
        assert (summary["init_pools"]["env_0"]["hits"], summary["init_pools"]["env_1"]["misses"]) == (1, 1)
        assert (summary["recur_pool"]["hits"], summary["recur_pool"]["misses"]) == (0, 1)
        twins.backend.reset_stats()
        summary = twins.backend.get_stats_summary()
        pools = [*summary["init_pools"].values(), summary["recur_pool"], summary["wm_pool"], summary["hierarchy"]]
        assert all(pool == CacheStats().to_dict() for pool in pools)
        assert twins.infer(Scope.ROOT, [(0, 7, 9)]) == [2]  # contents stay

    @pytest.mark.parametrize("change", OTHER_SHIFTS.values(), ids=OTHER_SHIFTS)
    def test_another_position_shift_clears_all_pools(self, change):
        """Entries are then of other weights. Legacy keeps them."""
        twins = self.slid_chain()
        cache, naive = twins.backend, twins.naive
        pools = (*cache.init_pools, cache.recur_pool, cache.wm_pool)
        twins.infer(Scope.NODE, [(0, 6, 7)])
        if "legacy" in self.backend:
            before = [len(pool) for pool in pools]
            cache.position_shift = change(cache.position_shift)
            assert [len(pool) for pool in pools] == before
            return
        cache.wm_pool.set(1, entry(1, 3, tokens=GEOMETRY.context_length))
        naive.shift = cache.position_shift = change(cache.position_shift)
        assert not any(len(pool) for pool in pools)
        naive.clear_all()
        for key in range(6, 14):  # until the window slides by the new correction
            twins.infer(Scope.ROOT, [(0, key, key + 1)])

    def test_an_equal_position_shift_changes_nothing(self):
        twins = self.slid_chain()
        twins.backend.position_shift = twins.backend.position_shift.clone()
        assert len(twins.backend.init_pools[0]) == 6
        for key in range(6, 9):
            twins.infer(Scope.ROOT, [(0, key, key + 1)])

    def slid_chain(self) -> Twins:
        """One environment's contexts until the window has slid: six keys in its init pool."""
        twins = self.twins()
        for key in range(6):
            twins.infer(Scope.ROOT, [(0, key or None, key + 1)])
        return twins

    def test_keys_are_the_hashes_of_the_latents(self):
        latents = torch.randn(4, 5, 3)
        keys = make_backend(self.backend, self.config()).hash_states(latents)
        assert list(keys) == [hash_state(latent) for latent in latents]

    def test_reserved_bytes_are_reported_by_purpose(self):
        twins = self.twins()
        assert set(twins.backend.bytes_reserved) == {"init", "recur", "wm", "batch"}
        twins.infer(Scope.ROOT, [(env, None, 7) for env in range(ENVS)])
        twins.infer(Scope.NODE, [(0, 7, 8)])
        reserved = twins.backend.bytes_reserved
        self.check_reserved_bytes(reserved)
        assert reserved["batch"] >= GEOMETRY.entry_bytes()

    def check_reserved_bytes(self, reserved: dict[str, int]) -> None:
        """After a root for each environment and one node."""
        assert reserved["init"] == ENVS * GEOMETRY.entry_bytes()
        assert reserved["recur"] == GEOMETRY.entry_bytes()
