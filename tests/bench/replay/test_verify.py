"""Broken caches are found out: whatever they return, it is never called a hit."""

from dataclasses import replace

import pytest
import torch
from traces import TINY, event, good_events, steps_of, synthetic

from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome, Outcomes
from kvbench.replay.passes import verify_replay
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import NO_ENV, ROOT_SIMULATION
from kvbench.trace.steps import read_steps
from kvcache.backend import Scope
from kvcache.config import CacheConfig
from kvcache.keys_values import KeysValues
from kvcache.legacy import LEGACY, LEGACY_0_2_0, LegacyCache
from kvcache.manager import KVCacheManager
from kvcache.registry import BACKENDS, make_backend

CONTENTS = Contents(TINY)


def verify(backend_class, steps, dtype=torch.float32, **config):
    backend = backend_class(CacheConfig(TINY, dtype=dtype, **config))
    backend.position_shift = CONTENTS.position_shift("cpu", dtype)
    return verify_replay(backend, steps, CONTENTS, Latents(TINY.embed_dim, "cpu"))


@pytest.fixture
def steps(tmp_path):
    return steps_of(synthetic(tmp_path / "trace", searches=4, episode_length=3))


def test_a_sound_cache_has_hits_only(steps):
    result = verify(KVCacheManager, steps)
    assert set(result.outcomes.root) == set(result.outcomes.node) == {Outcome.HIT}
    assert result.faults == []


class SaysEmpty(KVCacheManager):
    """Takes every row for one that starts empty."""

    def lookup(self, envs, keys, scope):
        return super().lookup(envs, [None] * len(keys), scope)


def test_an_empty_context_is_no_hit_where_another_was_stored(steps):
    result = verify(SaysEmpty, steps)
    assert set(result.outcomes.total) == {Outcome.WRONG_CONTENT}
    assert all("was never stored" in fault for fault in result.faults)


class OthersContent(KVCacheManager):
    """Finds, for every other key, what was stored under another key."""

    def _pool(self, name, storage, size):
        pool = super()._pool(name, storage, size)
        original = pool.find

        def find(key):
            slot = original(key)
            return slot if slot is None or len(pool) < 2 else (slot + 1) % len(pool)

        pool.find = find
        return pool


def test_another_keys_content_is_a_stale_hit(steps):
    sound = verify(KVCacheManager, steps).outcomes.total
    total = verify(OthersContent, steps).outcomes.total
    assert total[Outcome.STALE_HIT] > sound[Outcome.HIT] / 2
    # What is left of the hits is what came from pools with one entry.
    assert total[Outcome.HIT] < sound[Outcome.HIT] / 2


class OneElementOff(KVCacheManager):
    """Changes one element of one row of every batch that has a context."""

    place = (0, -1, -1, -1)

    def assemble(self):
        sizes = super().assemble()
        if self.keys_values_wm.size:
            layer, kind, head, element = self.place
            self.keys_values_wm.block[0, layer, kind, head, self.keys_values_wm.size - 1, element] += 1
        return sizes


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 0, 1, 3), (0, 1, 0, 7), (1, 1, 1, 7)])
def test_one_wrong_element_is_wrong_content(steps, place):
    backend = type("Off", (OneElementOff,), {"place": place})
    result = verify(backend, steps)
    damaged = [each for each, outcome in zip(rows_asked(steps), result.outcomes.by_lookup, strict=True) if each == 0]
    wrong = result.outcomes.total[Outcome.WRONG_CONTENT]
    assert wrong >= len(damaged)
    assert len(result.faults) == wrong
    assert "search 0, simulation 0, env 0: the context found under key 0x" in result.faults[0]


def rows_asked(steps):
    """The row of its batch for every lookup."""
    return [row for step in steps for row, parent in enumerate(step.parents) if parent is not None]


@pytest.mark.parametrize("token", [0, 1])
def test_a_wrong_element_in_any_token_is_wrong_content(steps, token):
    class Off(KVCacheManager):
        def assemble(self):
            sizes = super().assemble()
            for row, size in enumerate(sizes):
                if size > token:
                    first = self.keys_values_wm.size - size
                    self.keys_values_wm.block[row, 1, 1, 1, first + token, 2] -= 1
            return sizes

    result = verify(Off, steps)
    assert result.outcomes.total[Outcome.WRONG_CONTENT] > 0
    assert len(result.faults) >= result.outcomes.total[Outcome.WRONG_CONTENT]


class LiveReferences(KVCacheManager):
    """Stores a view of the batch, as the first design did."""

    def store(self, envs, keys, scope, priorities=None):
        sizes = self.keys_values_wm_size_list
        longest = max(sizes)
        appended = self.keys_values_wm.size - longest
        for row, (env, key, size) in enumerate(zip(envs, keys, sizes, strict=True)):
            pool = self.recur_pool if scope is Scope.NODE else self.init_pools[env]
            first, count = self.geometry.window(size + appended)
            start = longest - size + first
            view = self.keys_values_wm.block[row : row + 1, ..., start : start + count, :]
            pool.set(key, KeysValues.from_block(view, count))


def test_a_live_reference_to_the_batch_is_wrong_content(steps):
    result = verify(LiveReferences, steps, storage="reference")
    assert set(result.outcomes.total) == {Outcome.WRONG_CONTENT}
    assert result.faults


class LiveSupplies(KVCacheManager):
    """Keeps what the model made after a miss under the key that missed, without a copy."""

    supplied = None

    def lookup(self, envs, keys, scope):
        sizes = super().lookup(envs, keys, scope)
        if self.supplied is not None and scope is Scope.NODE:
            self._rows[0] = self.supplied
            sizes[0] = self.keys_values_wm_size_list[0] = self.supplied.size
        return sizes

    def supply(self, row, keys_values):
        super().supply(row, keys_values)
        self.supplied = keys_values


def test_a_live_reference_to_what_was_supplied_is_wrong_content():
    events = good_events()
    again = [each | {"batch": 3, "simulation": 2, "node": None} for each in events[11:]]
    for each in again:
        if each["kind"] == "store":
            each["key"] += 1000
    result = verify(LiveSupplies, list(read_steps([*events, *again])))
    assert result.outcomes.by_lookup[-2] is Outcome.WRONG_CONTENT


class NoFrontPadding(KVCacheManager):
    """Leaves something in front of shorter rows."""

    def assemble(self):
        sizes = super().assemble()
        for row, size in enumerate(sizes):
            self.keys_values_wm.block[row, ..., : max(sizes) - size, :] = 3
        return sizes


def test_padding_that_is_not_zero_is_wrong_content(steps):
    result = verify(NoFrontPadding, steps)
    assert result.outcomes.total[Outcome.WRONG_CONTENT] > 0
    assert result.outcomes.total[Outcome.HIT] > 0  # the longest rows have no padding


class NoBackPadding(KVCacheManager):
    """A resident batch that leaves something behind shorter rows."""

    def __init__(self, config):
        super().__init__(replace(config, storage="paged", resident_batch=True))

    def assemble(self):
        sizes = super().assemble()
        for row, size in enumerate(sizes):
            if 0 < size < max(sizes):
                self.keys_values_wm.block[row, ..., self.row_start(row) + size : max(sizes), :] = self.garbage
        return sizes

    garbage = 0


@pytest.mark.parametrize("garbage", [3, torch.nan])
def test_zeros_behind_the_tokens_of_a_resident_batch_are_checked(steps, garbage):
    assert verify(NoBackPadding, steps).faults == []
    result = verify(type("Spoilt", (NoBackPadding,), {"garbage": garbage}), steps)
    assert result.outcomes.total[Outcome.WRONG_CONTENT] > 0
    assert result.outcomes.total[Outcome.HIT] > 0  # the longest rows have no padding
    assert "was never stored" in result.faults[0]


class AlignedAtTheBack(KVCacheManager):
    """Pads behind, not in front."""

    def assemble(self):
        sizes = super().assemble()
        longest = max(sizes)
        for row, size in enumerate(sizes):
            if 0 < size < longest:
                block = self.keys_values_wm.block[row]
                block.copy_(block.roll(size - longest, dims=3))
        return sizes


def test_rows_that_are_not_aligned_to_the_longest_are_wrong_content(steps):
    total = verify(AlignedAtTheBack, steps).outcomes.total
    assert total[Outcome.WRONG_CONTENT] > 0


def test_rows_that_start_from_nothing_must_be_empty(steps):
    class NotEmpty(KVCacheManager):
        def assemble(self):
            sizes = super().assemble()
            if max(sizes) == 0:
                self.keys_values_wm.size = 1
                self.keys_values_wm_size_list = [1] * len(sizes)
            return self.keys_values_wm_size_list

    result = verify(NotEmpty, steps)
    assert "a row that starts empty is not empty" in result.faults[0]


class NoShift(KVCacheManager):
    """Says that positions change when a window slides, and does nothing about it."""

    @property
    def position_shift(self):
        return self.said

    @position_shift.setter
    def position_shift(self, shift):
        self.said = shift


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_slide_without_its_shift_is_wrong_content(steps, dtype):
    total = verify(NoShift, steps, dtype).outcomes.total
    assert total[Outcome.WRONG_CONTENT] > 0
    assert total[Outcome.HIT] > 0  # contexts that never slid


@pytest.mark.parametrize("error", [-1, 1, 2])
def test_a_wrong_size_is_an_error_or_a_fault(steps, error):
    class WrongSize(KVCacheManager):
        def assemble(self):
            sizes = super().assemble()
            self.keys_values_wm_size_list = [size + error if size > 1 else size for size in sizes]
            self.keys_values_wm.size = max(self.keys_values_wm_size_list)
            return self.keys_values_wm_size_list

    try:
        result = verify(WrongSize, steps)
    except ValueError:
        return
    total = result.outcomes.total
    assert total[Outcome.WRONG_CONTENT] + total[Outcome.STALE_HIT] > 0
    assert result.faults


def test_too_few_sizes_are_an_error(steps):
    class TooFew(KVCacheManager):
        def lookup(self, envs, keys, scope):
            return super().lookup(envs, keys, scope)[:-1]

    with pytest.raises(ValueError, match="zip"):
        verify(TooFew, steps)


def test_an_error_of_the_cache_is_not_swallowed(steps):
    class Raises(KVCacheManager):
        def store(self, *args):
            raise RuntimeError("out of slots")

    with pytest.raises(RuntimeError, match="out of slots"):
        verify(Raises, steps)


def test_a_miss_that_does_not_use_what_was_supplied_is_a_fault():
    class Ignores(KVCacheManager):
        def supply(self, row, keys_values):
            super().supply(row, KeysValues.from_block(torch.zeros_like(keys_values.block), keys_values.size))

    result = verify(Ignores, list(read_steps(good_events())))
    assert result.outcomes.by_lookup[2] is Outcome.MISS
    assert "the context supplied after the miss is not in the batch" in result.faults[0]


def test_the_right_key_with_another_history_is_a_context_mismatch(tmp_path):
    path = synthetic(tmp_path / "trace", searches=3, transpositions=0.5)
    total = verify(KVCacheManager, steps_of(path)).outcomes.total
    assert total[Outcome.CONTEXT_MISMATCH] > 0
    assert total[Outcome.WRONG_CONTENT] == total[Outcome.STALE_HIT] == 0


class TestOutcomes:
    def test_scopes_are_counted_apart_and_together(self):
        outcomes = Outcomes()
        outcomes.add(Scope.ROOT, Outcome.HIT, None)
        outcomes.add(Scope.NODE, Outcome.HIT, True)
        outcomes.add(Scope.NODE, Outcome.STALE_HIT, False)
        assert outcomes.root == {Outcome.HIT: 1}
        assert outcomes.node == {Outcome.HIT: 1, Outcome.STALE_HIT: 1}
        assert outcomes.total == {Outcome.HIT: 2, Outcome.STALE_HIT: 1}
        assert outcomes.by_lookup == [Outcome.HIT, Outcome.HIT, Outcome.STALE_HIT]

    @pytest.mark.parametrize("outcome", Outcome)
    def test_found_or_not_is_compared_with_the_recorded_run(self, outcome):
        for recorded in (True, False, None):
            outcomes = Outcomes()
            outcomes.add(Scope.NODE, outcome, recorded)
            assert outcomes.recorded == (recorded is not None)
            found = outcome is not Outcome.MISS
            assert outcomes.disagreements == (recorded is not None and recorded != found)


def test_after_a_recorded_miss_the_history_is_what_the_recorded_run_generated(tmp_path):
    """Replayed on the backend that it was recorded on, a trace with a miss meets no other history than the recorded."""
    path = synthetic(tmp_path / "trace", searches=2)
    events = list(TraceReader(path).events())
    roots = {row for row, each in enumerate(events) if each["kind"] == "store" and each["scope"] == "init"}
    for each in events:
        if each["kind"] == "lookup" and each["scope"] == "node":
            each["hit"] = each["node"] not in roots

    class LosesRoots(KVCacheManager):
        """Misses whatever lies in an init pool, as the recorded run did."""

        def lookup(self, envs, keys, scope):
            if scope is Scope.NODE:
                self.clear_init_caches()
            return super().lookup(envs, keys, scope)

    node = verify(LosesRoots, list(read_steps(events))).outcomes.node
    assert node[Outcome.MISS] > 0
    assert node[Outcome.HIT] > 0
    assert node[Outcome.CONTEXT_MISMATCH] == 0


# What is lost.

LOST = "which was stored and never evicted"


class FindsNothing(KVCacheManager):
    """A pool may take what it likes: it finds nothing of it."""

    def _pool(self, name, storage, size):
        pool = super()._pool(name, storage, size)
        pool.find = lambda key: None
        return pool


class LegacyFindsNothing(LegacyCache):
    def _find(self, env, key, scope):
        return None


@pytest.mark.parametrize(
    "backend",
    [
        FindsNothing,
        lambda config: LegacyFindsNothing(config, LEGACY),
        lambda config: LegacyFindsNothing(config, LEGACY_0_2_0),
    ],
)
def test_a_cache_that_finds_nothing_is_no_fast_cache(steps, backend):
    result = verify(backend, steps, init_pool_size=100)
    assert set(result.outcomes.total) == {Outcome.MISS}
    assert len(result.faults) == len(result.outcomes.by_lookup)
    assert all(LOST in fault for fault in result.faults)
    assert "search 0, simulation 0, env 0: nothing found under key 0x" in result.faults[0]


def test_a_cache_that_stores_every_other_row_is_found_out(steps):
    class Forgetful(KVCacheManager):
        def store(self, envs, keys, scope, priorities=None):
            super().store(envs, [keys[0]] * len(keys), scope, priorities)

    result = verify(Forgetful, steps)
    assert any(LOST in fault and "env 1" in fault for fault in result.faults)


def test_what_was_evicted_is_not_lost(steps):
    result = verify(KVCacheManager, steps, init_pool_size=1, recur_pool_size=2)
    assert result.outcomes.node[Outcome.MISS] > 0
    assert result.faults == []


def test_what_an_init_pool_evicted_is_not_lost():
    events = [
        *good_events()[:11],
        event("store", "init", 0, 2, ROOT_SIMULATION, key=102, tokens=1, depth=0),
        event("lookup", "node", 0, 3, 0, key=100, depth=1),
        event("store", "recur", 0, 3, 0, key=300, parent=100, tokens=2, depth=1),
    ]
    result = verify(KVCacheManager, list(read_steps(events)), init_pool_size=1)
    assert result.outcomes.by_lookup[-1] is Outcome.MISS
    assert result.faults == []


def test_one_pools_evictions_are_no_excuse_for_another(steps):
    result = verify(FindsNothing, steps, init_pool_size=100, recur_pool_size=1)
    assert result.evictions["recur"] > 0 == result.evictions["init"]
    of_roots = sum(parent is not None for step in steps if not step.is_recurrent for parent in step.parents)
    assert sum("simulation -1" in fault for fault in result.faults) == of_roots > 0


def test_where_evictions_are_not_counted_nothing_can_be_said_to_be_lost(steps):
    result = verify(lambda config: FindsNothing(config, enable_stats=False), steps)
    assert set(result.outcomes.total) == {Outcome.MISS}
    assert result.faults == []


def cleared_then_looked_up(scope):
    """A search of two roots and a simulation, a clear, and lookups of environment 0's root and environment 1's node."""
    return list(
        read_steps(
            [
                *good_events()[:11],
                event("clear", scope, NO_ENV, 2, ROOT_SIMULATION),
                event("lookup", "node", 0, 3, 0, key=100, node=2, depth=1),
                event("lookup", "node", 1, 3, 0, key=201, node=10, depth=2),
                event("store", "recur", 0, 3, 0, key=300, parent=100, tokens=2, depth=1),
                event("store", "recur", 1, 3, 0, key=301, parent=201, tokens=2, depth=2),
            ]
        )
    )


CLEARED = [
    ("recur", [Outcome.HIT, Outcome.MISS]),
    ("init", [Outcome.MISS, Outcome.HIT]),
    ("all", [Outcome.MISS, Outcome.MISS]),
]


@pytest.mark.parametrize(("scope", "outcomes"), CLEARED)
def test_what_was_cleared_is_not_lost(scope, outcomes):
    result = verify(KVCacheManager, cleared_then_looked_up(scope))
    assert result.outcomes.by_lookup[-2:] == outcomes
    assert result.faults == []


@pytest.mark.parametrize(("scope", "outcomes"), CLEARED)
def test_what_should_not_have_been_cleared_is_lost(scope, outcomes):
    class ClearsAll(KVCacheManager):
        def clear_recur_cache(self):
            for pool in (*self.init_pools, self.recur_pool):
                pool.clear()

        clear_init_caches = clear_recur_cache

    events = cleared_then_looked_up(scope)
    events[0].clears.clear()  # the clear that ends the root inference would be one too many
    result = verify(ClearsAll, events)
    assert all(LOST in fault for fault in result.faults)
    lost = [int(fault.split("env ")[1][0]) for fault in result.faults]
    assert lost == [env for env, outcome in enumerate(outcomes) if outcome is Outcome.HIT]


def ended_then_looked_up():
    """A root inference of both environments, the end of environment 1's episode, and lookups of both roots."""
    return list(
        read_steps(
            [
                *good_events()[:5],
                event("clear", "init", 1, 0, ROOT_SIMULATION),
                event("lookup", "root", 0, 1, ROOT_SIMULATION, key=100, node=2, depth=0),
                event("lookup", "root", 1, 1, ROOT_SIMULATION, key=101, node=3, depth=0),
                event("store", "init", 0, 1, ROOT_SIMULATION, key=300, parent=100, tokens=2, depth=0),
                event("store", "init", 1, 1, ROOT_SIMULATION, key=301, parent=101, tokens=2, depth=0),
            ]
        )
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_an_episode_of_one_environment_its_contexts_are_misses_on_every_backend(backend):
    result = verify(lambda config: make_backend(backend, config), ended_then_looked_up())
    assert result.outcomes.by_lookup == [Outcome.HIT, Outcome.MISS]
    assert result.faults == []


@pytest.mark.parametrize("base", [KVCacheManager, LegacyCache])
@pytest.mark.parametrize("name", ["clear_init_caches", "clear_recur_cache", "clear_all"])
def test_what_is_found_although_it_was_cleared_is_a_fault(base, name):
    forgetful = type("Forgetful", (base,), {name: lambda self, envs=None: None})
    steps, scope = ended_then_looked_up(), {"clear_recur_cache": "recur", "clear_all": "all"}.get(name)
    if scope is not None:
        steps = cleared_then_looked_up(scope)
        steps[0].clears.clear()
    result = verify(forgetful, steps)
    assert result.faults
    assert all("which was not stored since its pool was cleared" in fault for fault in result.faults)


@pytest.mark.parametrize(
    ("env", "scope", "simulation", "key"),
    [
        pytest.param(1, "node", 0, 100, id="in another environment's init pool"),
        pytest.param(0, "root", ROOT_SIMULATION, 200, id="in the recurrent pool, where a root inference does not look"),
    ],
)
def test_what_lies_where_a_lookup_does_not_look_is_not_lost(env, scope, simulation, key):
    events = [
        *good_events()[:11],
        event("lookup", scope, env, 2, simulation, key=key, depth=1),
        event("store", {"root": "init", "node": "recur"}[scope], env, 2, simulation, key=300, parent=key, tokens=2),
    ]
    result = verify(KVCacheManager, list(read_steps(events)))
    assert result.outcomes.by_lookup[-1] is Outcome.MISS
    assert result.faults == []


def test_a_geometry_that_keeps_no_past_loses_nothing():
    geometry = replace(TINY, context_length=2)
    contents = Contents(geometry)
    steps = [step for step in read_steps(good_events()) if step.is_recurrent]
    for step in steps:
        step.nodes = [None] * len(step.nodes)
    result = verify_replay(
        KVCacheManager(CacheConfig(geometry)), [*steps, *steps], contents, Latents(geometry.embed_dim, "cpu")
    )
    assert set(result.outcomes.total) == {Outcome.MISS}
    assert result.faults == []


def test_at_a_context_length_of_three_every_empty_context_is_a_hit():
    """A window that slid is empty there: what is found is right whichever context it was."""
    geometry = replace(TINY, context_length=3)
    contents = Contents(geometry)
    backend = KVCacheManager(CacheConfig(geometry))
    steps = list(read_steps(good_events()))
    result = verify_replay(backend, [*steps, *steps], contents, Latents(geometry.embed_dim, "cpu"))
    assert result.faults == []
    assert result.outcomes.total[Outcome.HIT] > 0
    assert set(result.outcomes.total) <= {Outcome.HIT, Outcome.MISS}


def test_at_a_context_length_of_three_a_row_that_should_be_empty_is_looked_at():
    class HasATokenTooMany(KVCacheManager):
        def assemble(self):
            sizes = super().assemble()
            self.keys_values_wm_size_list[0] += 1
            return sizes

    geometry = replace(TINY, context_length=3)
    contents = Contents(geometry)
    steps = [step for step in read_steps(good_events()) if None not in step.parents]
    backend = HasATokenTooMany(CacheConfig(geometry))
    result = verify_replay(backend, [*steps, *steps], contents, Latents(geometry.embed_dim, "cpu"))
    assert Outcome.HIT not in result.outcomes.total
    assert result.faults


def test_lookups_whose_outcome_was_recorded_are_counted():
    result = verify(KVCacheManager, list(read_steps(good_events())))
    assert result.outcomes.recorded == 4
