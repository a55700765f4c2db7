"""The policy for search trees, beside the same in a few slow lines, and case by case."""

from hypothesis import given, settings
from hypothesis import strategies as st
from policy_conformance import SLOTS, PolicyConformance

from kvcache import KVCachePool, eviction
from kvcache.eviction import EntryInfo, EvictionStrategy, TreePolicy, tree
from kvcache.eviction.lessons import Lessons, Trial

ROOT = "root"  # is in another pool


class TestTree(PolicyConformance):
    strategy = EvictionStrategy.TREE


class TestTreeInPython(PolicyConformance):
    strategy = EvictionStrategy.TREE

    def make(self, size=SLOTS):
        return TreePolicy(size)


def pool_of(size=3):
    return KVCachePool(size, "tree", storage="reference")


def extend(pool, parent, key, env=0, depth=None, **known):
    """One simulation of one environment: look the parent up, then store the new entry."""
    found = parent != ROOT and pool.get(parent) is not None
    pool.set(key, key, info=EntryInfo(parent=parent, env=env, depth=depth, **known))
    return found


def test_what_has_lost_its_history_goes_first():
    pool = pool_of()
    for key in "abc":
        extend(pool, ROOT if key == "a" else "a", key)
    extend(pool, "gone", "orphan", depth=4)
    extend(pool, "orphan", "grandchild", depth=5)
    assert "grandchild" in pool  # a new entry is never refused
    assert "orphan" not in pool
    extend(pool, "c", "d")
    assert "grandchild" not in pool


def test_a_context_that_was_evicted_in_the_batch_that_extends_it_was_found():
    pool = pool_of(2)
    extend(pool, ROOT, "a")
    extend(pool, ROOT, "b")
    pool.get("a"), pool.get("b")
    for parent in "ab":  # both slots are needed for the children
        pool.set(parent * 2, 0, info=EntryInfo(parent=parent, depth=2))
    extend(pool, "gone", "orphan", depth=3)
    extend(pool, "gone", "other", depth=3)
    assert len({"aa", "bb"}.intersection(pool)) == 1


def test_what_every_action_has_extended_goes_first():
    pool = pool_of()
    extend(pool, ROOT, "a", actions=2)
    extend(pool, "a", "b", actions=2)
    extend(pool, "a", "c", actions=2)
    extend(pool, "c", "d", actions=2)
    assert sorted(pool) == ["b", "c", "d"]


def test_the_number_of_actions_is_learned_from_former_searches():
    pool = pool_of(100)
    for search in range(2):
        for number in range(20):
            extend(pool, ROOT, number)
            for child in range(3):
                extend(pool, number, (number, child))
        if search == 0:
            pool.clear()
    for number in range(20):
        extend(pool, "x", ("new", number), depth=1)  # 20 more than there are slots
    extend(pool, ROOT, "last")
    assert not any(number in pool for number in range(20 - len(pool) + 80))


def test_an_entry_that_is_needed_after_all_makes_it_doubt():
    lessons = Lessons()
    for _ in range(16):
        lessons.extended(2)
    assert lessons.most_children is None
    lessons.begin()
    assert lessons.most_children == 2
    lessons.asked_again()
    lessons.begin()
    assert lessons.most_children is None
    for _ in range(48):
        lessons.extended(2)
    lessons.begin()
    assert lessons.most_children == 2


def test_more_lookups_than_ever_are_counted_anew():
    lessons = Lessons()
    for times in (*[2] * 30, 3):
        lessons.extended(times)
    lessons.begin()
    assert lessons.most_children is None


def test_the_order_that_is_right_more_often_is_followed():
    lessons = Lessons()
    trial = Trial(lessons, 8)
    for number in range(3):
        trial.nominate(("old", number), ("deep", number))
        trial.asked(("old", number))  # recency would have evicted it
    assert not lessons.follows_recency
    for number in range(6):
        trial.nominate(("old", number), ("deep", number))
        trial.asked(("deep", number))
        trial.asked(("old", number))  # decides nothing more
    assert lessons.follows_recency


def test_what_is_kept_does_not_grow(monkeypatch):
    """With lookups that nothing is stored after, and with a path without an end."""
    monkeypatch.setattr(tree, "_LARGEST_BATCH", 50)
    monkeypatch.setitem(eviction._POLICIES, EvictionStrategy.TREE, TreePolicy)  # the one in C has no such attributes
    pool = pool_of(4)
    pool.set(0, 0)
    for key in range(1, 300):
        pool.get(-key)
        extend(pool, key - 1, key, actions=1 + key % 2)
    for key in range(300):
        pool.get(-key)
    policy = pool._slots._policy
    kept = policy._by_depth, policy._depths, policy._extended, policy._nodes, policy._useless
    assert max(map(len, kept)) <= 4
    assert len(policy._looked_up) <= 50


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 9))), st.integers(1, 4))
def test_a_trial_has_a_bounded_number_of_whole_pairs(calls, limit):
    trial = Trial(Lessons(), limit)
    for nominates, first, second in calls:
        if nominates:
            trial.nominate(first, second)
        else:
            trial.asked(first)
        assert len(trial) <= limit
        assert all(trial._pairs[rival][0] == key for key, (rival, _) in trial._pairs.items())


def test_a_clear_keeps_what_was_learned():
    lessons = Lessons()
    policy = TreePolicy(4, lessons)
    assert policy.successor()._lessons is lessons
    assert TreePolicy(4)._lessons is not lessons


class SlowTree:
    """The same rules, looking through all entries each time. The number of actions and the order are given."""

    def __init__(self, size, actions, by_depth):
        self.size, self.actions, self.by_depth, self.now = size, actions, by_depth, 0
        self.entries = {}

    def extend(self, parent, key, depth):
        above = self.entries.get(parent)
        whole = parent == ROOT or (above is not None and above["whole"])
        if above is not None:
            was_useful = self.is_useful(above)
            above["lookups"] += 1
            if was_useful and not self.is_useful(above):
                above["placed"] = self.tick()
            self.use_path(parent)
        if key not in self.entries and len(self.entries) == self.size:
            del self.entries[self.victim()]
        entry = self.entries.setdefault(key, {"stores": 0, "lookups": 0})
        now = self.tick()
        entry |= {"whole": whole, "stores": entry["stores"] + 1, "parent": parent, "depth": depth}
        entry |= {"used": now, "placed": now}
        return above is not None

    def tick(self):
        self.now += 1
        return self.now

    def use_path(self, key):
        for _ in range(min(16, max(1, len(self.entries) - 2))):
            if key not in self.entries:
                return
            self.entries[key]["used"] = self.tick()
            key = self.entries[key]["parent"]

    def is_useful(self, entry):
        return entry["whole"] and entry["lookups"] < self.actions * entry["stores"]

    def victim(self):
        useful = [key for key, entry in self.entries.items() if self.is_useful(entry)]
        useless = self.entries.keys() - useful
        if useless:
            return min(useless, key=lambda key: self.entries[key]["placed"])
        if self.by_depth:
            return max(useful, key=lambda key: (self.entries[key]["depth"], self.entries[key]["placed"]))
        return min(useful, key=lambda key: self.entries[key]["used"])


class Frozen(Lessons):
    """Learns nothing."""

    def judged(self, result):
        pass


@given(
    steps=st.lists(st.tuples(st.sampled_from([ROOT, *range(9)]), st.integers(0, 8), st.integers(1, 4)), max_size=60),
    size=st.integers(1, 5),
    actions=st.integers(1, 3),
    by_depth=st.booleans(),
)
@settings(max_examples=200)
def test_hits_and_keys_are_those_of_a_slow_model(steps, size, actions, by_depth):
    pool, slow = pool_of(size), SlowTree(size, actions, by_depth)
    lessons = Frozen()
    lessons.follows_recency = not by_depth
    pool._slots._policy = TreePolicy(size, lessons)
    for parent, key, depth in steps:
        hit = extend(pool, parent, key, depth=depth, actions=actions)
        assert hit == slow.extend(parent, key, depth)
        assert set(pool) == set(slow.entries)
