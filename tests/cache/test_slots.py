"""Slots: in C and in Python they give the same slots and victims, and neither searches."""

import contextlib
import copy
import gc
import math
import pickle
import sys
import time

import pytest
from conformance import entry
from hypothesis import given
from hypothesis import strategies as st

from kvcache import KVCachePool
from kvcache import slots as module
from kvcache.eviction import DEFAULT_PRIORITY, EvictionStrategy, FifoPolicy
from kvcache.slots import PolicySlots, make_slots
from kvcache.storage import STORAGES

STRATEGIES = list(EvictionStrategy)
COMPILED = [EvictionStrategy.FIFO, EvictionStrategy.LRU, EvictionStrategy.PRIORITY]
each_compiled = pytest.mark.parametrize("strategy", COMPILED, ids=lambda each: each.value)
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda each: each.value)


@pytest.fixture(params=["compiled", "Python"])
def make(request):
    """Makes slots in C or in Python."""
    if request.param == "Python":
        return PolicySlots
    pytest.importorskip("kvcache._slots", reason="not compiled")
    return make_slots


def state(slots):
    keys = sorted(slots.keys(), key=repr)
    return [(key, slots.peek(key)) for key in keys], slots.free_slots(), slots.unused, len(slots)


class Odd(float):
    """Compared in Python: C knows nothing of its order."""

    def __lt__(self, other):
        return float(self) < float(other)


PRIORITIES = st.one_of(
    st.none(), st.floats(allow_nan=False), st.integers(-3, 3), st.sampled_from([2**53, 2**53 + 1, -(2**70), Odd(1.5)])
)
CALLS = st.sampled_from(["claim", "claim", "claim", "find", "peek", "evict", "clear", "copy"])
STEPS = st.lists(st.tuples(CALLS, st.integers(0, 9), PRIORITIES))


@each_compiled
@given(size=st.integers(1, 6), steps=STEPS)
def test_both_do_the_same(strategy, size, steps):
    pytest.importorskip("kvcache._slots", reason="not compiled")
    ours, judge = make_slots(strategy, size), PolicySlots(strategy, size)
    assert type(ours) is not PolicySlots
    for step, key, priority in steps:
        if step == "claim":
            slot = judge.claim(key, priority)
            assert ours.claim(key, priority) == slot
            assert slot >= 0 or ours.evicted == judge.evicted
        elif step in ("find", "peek"):
            assert getattr(ours, step)(key) == getattr(judge, step)(key)
        elif step == "evict" and len(judge):
            assert (ours.evict(), ours.evicted) == (judge.evict(), judge.evicted)
        elif step == "clear":
            ours.clear()
            judge.clear()
        elif step == "copy":
            ours, judge = copy.deepcopy(ours), pickle.loads(pickle.dumps(judge))
        assert state(ours) == state(judge)
    while len(judge):
        assert (ours.evict(), ours.evicted) == (judge.evict(), judge.evicted)


@each_compiled
def test_a_copy_of_compiled_slots_is_read_where_they_are_not(strategy, monkeypatch):
    pytest.importorskip("kvcache._slots", reason="not compiled")
    slots = make_slots(strategy, 5)
    for key, priority in zip("abcda", (3.0, 1.0, 2.0, 1.0, 0.5), strict=True):
        slots.claim(key, priority)
    slots.evict()
    given = pickle.dumps(slots)
    monkeypatch.setattr(module, "_Compiled", None)
    copied = pickle.loads(given)
    assert type(copied) is PolicySlots
    assert state(copied) == state(slots)
    assert [copied.evict() for _ in range(3)] == [slots.evict() for _ in range(3)]


def test_a_policy_of_somebodys_own_has_slots_in_python(monkeypatch):
    class Own(FifoPolicy):
        def victim(self, incoming):
            return next(reversed(self._order))

    monkeypatch.setattr("kvcache.eviction._POLICIES", {EvictionStrategy.FIFO: Own})
    pool = KVCachePool(2, storage="reference")
    for key in "abc":
        pool.set(key, key)
    assert set(pool) == {"a", "c"}


class TestRefused:
    """What nobody but a broken key or a broken pickle asks of the compiled ones."""

    @pytest.fixture
    def compiled(self):
        pytest.importorskip("kvcache._slots", reason="not compiled")
        return make_slots(EvictionStrategy.PRIORITY, 2)

    def test_a_priority_that_calls_the_slots_it_is_compared_for(self, compiled):
        class Calls(float):
            def __lt__(self, other):
                compiled.claim("c", 1.0)

        compiled.claim("a", Calls(1))
        with pytest.raises(RuntimeError, match="called the pool that compared it"):
            compiled.claim("b", Calls(2))
        assert compiled.peek("a") == 0

    def test_no_victim_and_no_such_arguments(self, compiled):
        with pytest.raises(IndexError):
            compiled.evict()
        with pytest.raises(TypeError):
            compiled.claim("a")
        with pytest.raises(TypeError):
            compiled.claim([], None)
        with pytest.raises(TypeError):
            compiled.find([])

    @pytest.mark.parametrize(
        ("occupied", "free", "unused"),
        [
            ([], [], 1),
            ([], [0], -1),
            ([(0, "a", 2, 0.0)], [], 1),
            ([(0, "a", 0, 0.0), (1, "b", 0, 0.0)], [], 0),
            ([5], [], 1),
            ([], [2], 1),
            ([], [-1, 0], 0),
            ([], [0, 0], 0),
            ([(0, "a", 0, 0.0)], [0], 0),
        ],
    )
    def test_a_state_that_cannot_be(self, compiled, occupied, free, unused):
        with pytest.raises((ValueError, TypeError)):
            compiled.restore(occupied, free, unused)


class Counted:
    """A priority that counts how often it is compared."""

    compared = 0

    def __init__(self, number):
        self.number = number

    def __lt__(self, other):
        Counted.compared += 1
        return self.number < other.number

    def __eq__(self, other):
        Counted.compared += 1
        return self.number == other.number

    __hash__ = None


class Caller:
    """A key that makes a call when it is compared."""

    def __init__(self, call):
        self.call = call

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.call()
        return self is other


@each_compiled
@pytest.mark.parametrize("method", ["find", "claim"])
def test_a_key_that_evicts_while_it_is_looked_up_harms_nothing(strategy, method):
    pytest.importorskip("kvcache._slots", reason="not compiled")
    slots = make_slots(strategy, 3)
    slots.claim(Caller(slots.evict), None)
    slots.claim(2, None)
    with contextlib.suppress(RuntimeError):
        getattr(slots, method)(Caller(slots.evict), *([None] if method == "claim" else []))
    while len(slots):
        slots.evict()
    assert len({slots.claim(key, None) for key in range(10, 13)}) == 3
    assert [slots.find(key) is not None for key in range(10, 13)] == [True] * 3


@each_compiled
@pytest.mark.parametrize("method", ["find", "peek", "claim"])
def test_a_key_that_clears_while_it_is_looked_up_harms_nothing(strategy, method):
    """What is looked through lives until then: its memory would be another's."""
    pytest.importorskip("kvcache._slots", reason="not compiled")
    slots = make_slots(strategy, 2000)
    kept = []

    def clear():
        slots.clear()
        slots.claim(0, None)
        kept.extend({f"{each}": each} for each in range(1000))

    for key in range(2, 1000):
        slots.claim(key, None)
    slots.claim(1, None)
    with contextlib.suppress(RuntimeError):
        getattr(slots, method)(Caller(clear), *([None] if method == "claim" else []))
    assert slots.claim("another", None) >= 0
    assert slots.peek("another") is not None


@pytest.mark.parametrize("slots", [16, 4096])
def test_a_victim_by_priority_takes_a_logarithm_of_comparisons(make, slots):
    made = make(EvictionStrategy.PRIORITY, slots)
    for key in range(slots):
        made.claim(key, Counted(key * 7919 % slots))
    Counted.compared = 0
    for key in range(slots, 3 * slots):
        assert made.claim(key, Counted(key * 7919 % slots)) < 0
    assert Counted.compared <= 2 * slots * 8 * math.log2(slots)


def opcodes(call):
    """Python's own instructions of a call. C code counts nothing."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return count


def filled(slots, strategy, make=PolicySlots):
    made = make(strategy, slots)
    for key in range(slots):
        made.claim(key, DEFAULT_PRIORITY)
    return made


@each_strategy
def test_a_victim_takes_as_many_instructions_in_a_large_pool(strategy):
    """Of a claim in Python, after claims that came in order."""
    small, large = (filled(slots, strategy) for slots in (16, 4096))
    assert fewest_opcodes(large) == fewest_opcodes(small) > 50


def fewest_opcodes(made):
    """Of claims of keys that are not there: what else runs now and then does not count."""
    return min(opcodes(lambda key=key: made.claim(key, None)) for key in range(-20, 0))


def seconds(call, prepare=None, laps=9):
    """The least of some laps."""
    least = math.inf
    gc.collect()
    gc.disable()
    try:
        for _ in range(laps):
            if prepare is not None:
                prepare()
            start = time.perf_counter()
            call()
            least = min(least, time.perf_counter() - start)
    finally:
        gc.enable()
    return least


def claims(made):
    """A hundred claims, each of a key that is not there."""
    keys = iter(range(10**6, 10**7))

    def call():
        for _ in range(100):
            made.claim(next(keys), None)

    return call


MOST_TIMES = 6  # as long with 16,384 slots as with 16: caches miss, and PRIORITY takes a logarithm


@each_strategy
def test_a_claim_takes_as_long_in_a_large_pool(make, strategy):
    small, large = (seconds(claims(filled(slots, strategy, make))) for slots in (16, 16384))
    assert large < MOST_TIMES * small


def test_a_search_through_all_slots_would_be_noticed(monkeypatch):
    class Searches(FifoPolicy):
        def victim(self, incoming):
            return min(self._order, key=lambda slot: slot)

    monkeypatch.setattr("kvcache.eviction._POLICIES", {EvictionStrategy.FIFO: Searches})
    small, large = (filled(slots, EvictionStrategy.FIFO) for slots in (16, 1024))
    assert fewest_opcodes(large) > 10 * fewest_opcodes(small)
    assert seconds(claims(large), laps=2) > MOST_TIMES * seconds(claims(small))


@each_strategy
def test_a_clear_takes_as_long_in_a_full_pool(make, strategy):
    """Also where slots were freed. Caches are as cold for both."""
    small, large = (make(strategy, slots) for slots in (16, 16384))

    def fill():
        for made, slots in ((small, 16), (large, 16384)):
            for key in range(slots):
                made.claim(key, None)
            for _ in range(slots // 2):
                made.evict()

    assert seconds(large.clear, fill, laps=5) < MOST_TIMES * seconds(small.clear, fill, laps=5)


@pytest.mark.parametrize("storage", STORAGES)
def test_clearing_a_pool_takes_as_many_instructions_however_much_it_holds(make, storage, monkeypatch):
    if make is PolicySlots:
        monkeypatch.setattr(module, "_Compiled", None)
    counts = []
    for slots in (3, 300):
        pool = KVCachePool(slots, storage=storage)
        laps = []
        for _ in range(3):
            for key in range(slots):
                pool.set(key, entry(key, 2))
            laps.append(opcodes(pool.clear))
        counts.append(min(laps))
    assert counts[0] == counts[1] > 20


@each_strategy
def test_what_was_cleared_is_kept_until_the_next_claim_and_no_longer(make, strategy):
    class Key:
        pass

    import weakref

    made = make(strategy, 3)
    keys = [Key() for _ in range(3)]
    refs = [weakref.ref(key) for key in keys]
    for key in keys:
        made.claim(key, None)
    del key, keys
    made.clear()
    made.clear()
    for new in "abc":
        made.claim(new, None)
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3
