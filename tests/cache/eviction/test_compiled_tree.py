"""The policy for search trees in C does the same as in Python, call by call, and no key breaks it."""

import contextlib
import copy
import gc
import pickle
import random
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcache.eviction import EntryInfo, EvictionStrategy, TreePolicy, compiled
from kvcache.eviction.lessons import Lessons
from kvcache.slots import PolicySlots

pytest.importorskip("kvcache.eviction._tree", reason="not compiled")

Compiled = compiled.CompiledTreePolicy


def state(policy):
    """Everything that decides what it does next."""
    lessons, nodes = policy._lessons, policy._nodes
    found = {name: value for name, value in vars(policy).items() if name not in ("_lessons", "_trial", "_depths")}
    orders = {name: list(found.pop(name)) for name in ("_useless", "_by_recency", "_extended")}
    levels = {depth: list(level) for depth, level in found.pop("_by_depth").items() if level}
    same = {key: nodes.get(node.key) is node for key, node in policy._looked_up.items() if node}
    return found, orders, levels, same, list(policy._trial._pairs.items()), vars(lessons)


def slots_of(policy):
    """Python's slots in the order of that policy."""
    slots = PolicySlots(EvictionStrategy.TREE, policy.size if isinstance(policy, Compiled) else policy._size)
    slots._policy = policy
    return slots


KEYS = st.integers(0, 11)
INFOS = st.builds(
    EntryInfo,
    tokens=st.sampled_from([None, 4]),
    new_tokens=st.sampled_from([None, 4, 4, 2]),
    parent=st.none() | KEYS,
    depth=st.sampled_from([None, None, 0, 1, 2, 7]),
    env=st.sampled_from([None, 0, 0, 1]),
    actions=st.sampled_from([None, None, 1, 2]),
)
CALLS = st.sampled_from(["claim", "claim", "claim", "find", "find", "find", "evict", "clear", "copy", "pickle"])


@given(st.integers(1, 6), st.lists(st.tuples(CALLS, KEYS, INFOS), max_size=80))
@settings(max_examples=150)
def test_both_do_the_same(size, steps):
    ours, judge = slots_of(Compiled(size)), slots_of(TreePolicy(size))
    for call, key, known in steps:
        info = known._replace(key=key)
        if call == "claim":
            assert ours.claim(key, None, info) == judge.claim(key, None, info)
        elif call == "find":
            assert ours.find(key) == judge.find(key)
        elif call == "evict" and len(judge):
            assert ours.evict(info) == judge.evict(info)
        elif call == "clear":
            ours.clear()
            judge.clear()
        elif call == "copy":
            ours = copy.deepcopy(ours)
        elif call == "pickle":
            ours = pickle.loads(pickle.dumps(ours))
        assert type(ours._policy) is Compiled
        assert ours.evicted == judge.evicted
        assert state(ours._policy.in_python()) == state(judge._policy)


def searches(policy, keys, seed):
    """Victims of searches as a model makes them: a leaf below an entry that was found or not, then the next search."""
    choose, slots, done = random.Random(seed), slots_of(policy), []
    for search in range(6):
        for step in range(150):
            above = [choose.randrange(max(1, step * 2)) for _ in range(2)]
            done.append([slots.find((search, each)) for each in above])
            for env, parent in enumerate(above):
                key, tokens = (search, choose.randrange(keys)), choose.choice([2, 4])
                info = EntryInfo(key, None, 4, tokens, (search, parent), None, env)
                done.append((slots.claim(key, None, info), slots.evicted))
        slots.clear()
    return done


@pytest.mark.parametrize("size", [1, 5, 50])
def test_both_learn_the_same(size):
    """From long runs: lessons need dozens of entries."""
    ours, judge = Lessons(), Lessons()
    for seed in range(3):
        assert searches(Compiled(size, ours), 300, seed) == searches(TreePolicy(size, judge), 300, seed)
    assert vars(ours) == vars(judge)
    assert ours._most >= 1


def filled(size=4):
    slots = slots_of(Compiled(size))
    for key in range(size):
        slots.find(key - 1)
        slots.claim(key, None, EntryInfo(key, parent=key - 1, env=0, actions=3))
    return slots


def test_the_default_is_compiled():
    """Also in a pool, and after a clear."""
    slots = PolicySlots(EvictionStrategy.TREE, 3)
    assert type(slots._policy) is Compiled
    slots.claim("a", None)
    slots.clear()
    assert type(slots._policy) is Compiled


def test_a_copy_is_read_where_nothing_is_compiled(monkeypatch):
    slots = filled()
    given = pickle.dumps(slots)
    monkeypatch.setattr(compiled, "_Compiled", None)
    copied = pickle.loads(given)
    assert type(copied._policy) is TreePolicy
    assert type(compiled.make_tree_policy(3)) is TreePolicy
    assert [copied.evict() for _ in range(4)] == [slots.evict() for _ in range(4)]


def test_what_was_cleared_and_its_cycles_are_freed():
    class Key:
        pass

    key, policy = Key(), Compiled(3)
    key.policy = policy
    policy.insert(0, EntryInfo(key, parent=key))
    policy.touch(0)
    ref = weakref.ref(key)
    del key, policy
    gc.collect()
    assert ref() is None


class Hostile:
    """A key whose comparisons do something."""

    def __init__(self, call):
        self.call = call

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.call()
        return self is other


def fails():
    raise ZeroDivisionError


def use_all(policy, size):
    """It evicts each slot once, and takes new entries after that."""
    present = {each.slot for each in policy.ordered()}
    for _ in range(len(present)):
        slot = policy.victim(EntryInfo())
        policy.remove(slot)
        present.remove(slot)
    assert not present
    for slot in range(size):
        policy.insert(slot, EntryInfo(f"new {slot}"))
        policy.touch(slot)
    assert sorted(each.slot for each in policy.ordered()) == list(range(size))


CALLS_OF_POLICY = [
    ("insert", 3), ("update", 1), ("touch", 1), ("miss", None), ("remove", 1), ("victim", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "slot"), CALLS_OF_POLICY)
@pytest.mark.parametrize("what", ["fails", "reenters"])
@pytest.mark.parametrize("quiet_for", range(4))
def test_a_key_that_fails_or_calls_harms_nothing(method, slot, what, quiet_for):
    policy, armed = Compiled(4), []

    def call():
        armed.append(1)
        if len(armed) <= quiet_for or armed[0] == 0:
            return
        if what == "fails":
            fails()
        for other, at in CALLS_OF_POLICY:
            with contextlib.suppress(RuntimeError, KeyError, IndexError):
                getattr(policy, other)(
                    *([at] if at is not None else [Hostile(fails)] if other == "miss" else []),
                    *([EntryInfo("x")] if other in ("insert", "update", "victim") else []),
                )

    armed.append(0)
    keys = [Hostile(call) for _ in range(3)]
    for number, key in enumerate(keys):
        policy.insert(number, EntryInfo(key, parent=keys[number - 1] if number else None, depth=number))
    policy.touch(0)
    policy.victim(EntryInfo())
    armed.clear()
    new = EntryInfo(Hostile(call), parent=Hostile(call), depth=2)
    given = {"insert": (3, new), "update": (1, new), "miss": (Hostile(call),), "victim": (new,)}.get(method, (slot,))
    with contextlib.suppress(ZeroDivisionError, RuntimeError):
        getattr(policy, method)(*given)
    armed[:] = [0]
    use_all(policy, 4)


@pytest.mark.parametrize("method", ["extended", "asked_again", "judged"])
def test_lessons_that_are_interrupted_harm_nothing(method, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Lessons, method, interrupt)
    slots = slots_of(Compiled(5))
    for step in range(200):
        with contextlib.suppress(KeyboardInterrupt):
            slots.find(step * 7 % 13)
        slots.claim(step % 13, None, EntryInfo(step % 13, parent=step * 7 % 13, env=0, actions=1))
    monkeypatch.undo()
    use_all(slots._policy, 5)


def test_memory_that_ends_harms_nothing():
    """Wherever that is: each call raises MemoryError, and all slots are still there."""
    testcapi = pytest.importorskip("_testcapi")
    policy, present, failed = Compiled(6), set(), 0
    for step in range(1500):
        slot, start = step * 5 % 6, step // 6 % 12
        info = EntryInfo((step * 7 % 11,), parent=(step * 3 % 11,), env=step % 2, actions=2)
        method, *given = (
            ("insert", slot, info)
            if slot not in present
            else [("touch", slot), ("remove", slot), ("victim", info), ("update", slot, info), ("miss", ("x", step))][
                step % 5
            ]
        )
        call = getattr(policy, method)
        testcapi.set_nomemory(start)
        try:
            call(*given)
        except MemoryError:
            failed += 1
        finally:
            testcapi.remove_mem_hooks()
        present = {each.slot for each in policy.ordered()}
    assert failed > 50
    use_all(policy, 6)


def test_what_nobody_asks_is_refused():
    policy = Compiled(2)
    with pytest.raises(IndexError):
        policy.victim(EntryInfo())
    with pytest.raises(IndexError):
        policy.insert(2, EntryInfo("a"))
    with pytest.raises(TypeError):
        policy.insert(0, ("a",))
    with pytest.raises(TypeError):
        policy.insert(0)
    with pytest.raises(TypeError):
        policy.update(0)
    for call in (policy.touch, policy.remove, lambda slot: policy.update(slot, EntryInfo())):
        with pytest.raises(KeyError):
            call(0)
    with pytest.raises(TypeError):
        policy.insert(0, EntryInfo([]))
    policy.insert(0, EntryInfo("a"))
    with pytest.raises(ValueError, match="slot 0 is occupied"):
        policy.insert(0, EntryInfo("b"))
    with pytest.raises(ValueError, match="no pool of 0 slots"):
        Compiled(0)
    with pytest.raises(TypeError):
        type(policy.nodes["a"])()
    use_all(policy, 2)


def test_numbers_beyond_c_are_the_largest():
    policy = Compiled(3)
    policy.insert(0, EntryInfo("a", depth=2**80, actions=2**80))
    policy.touch(0)
    policy.insert(1, EntryInfo("b", parent="a"))
    assert {each.depth for each in policy.ordered()} == {2**31}
    use_all(policy, 3)


def test_lookups_without_stores_are_forgotten_alike():
    ours, judge = slots_of(Compiled(2)), slots_of(TreePolicy(2))
    for key in range(65_536 + 10):
        assert ours.find(key) is judge.find(key) is None
    assert len(ours._policy.looked_up) == len(judge._policy._looked_up) == 10
