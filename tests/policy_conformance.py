"""What every eviction policy must do, written once.

One more passes all of it by a subclass with one attribute, in its own test file::

    class TestLru(PolicyConformance):
        strategy = EvictionStrategy.LRU
"""

from __future__ import annotations

import copy
import pickle
import random
from functools import partial

from histories import RaiseAtLine, lines_of, traced
from hypothesis import given
from hypothesis import strategies as st

from kvcache.eviction import EntryInfo, EvictionPolicy, EvictionStrategy, make_policy

SLOTS = 10

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "touch", "update", "evict", "copy"]),
        st.integers(0, SLOTS - 1),
        st.integers(0, 15),
        st.none() | st.integers(-2, 2).map(float),
    )
)


def occupied(policy: EvictionPolicy, *slots: int, priorities=None) -> EvictionPolicy:
    """The policy after those slots were given to the keys 0, 1, ..."""
    for key, slot in enumerate(slots):
        policy.insert(slot, EntryInfo(key, None if priorities is None else priorities[key]))
    return policy


def evict(policy: EvictionPolicy, incoming: EntryInfo | None = None) -> int:
    """The next victim, removed."""
    slot = policy.victim(incoming or EntryInfo())
    policy.remove(slot)
    return slot


def drain(policy: EvictionPolicy, count: int) -> list[int]:
    """The next ``count`` victims, each removed."""
    return [evict(policy) for _ in range(count)]


def known(random_: random.Random, keys: int) -> EntryInfo:
    """Something that a search could know of an entry: its parent may be there, gone, or unheard of."""
    key, parent = random_.randrange(keys), random_.choice([None, *range(keys)])
    return EntryInfo(
        key, random_.choice([None, -1.0, 2.0]), random_.choice([None, 3]), random_.choice([None, 2]), parent,
        random_.choice([None, 1, 5]), random_.choice([None, 0, 1]), random_.choice([None, 0, 9]),
        random_.choice([None, 0.0, 0.5]), random_.choice([None, 1, 2]),
    )  # fmt: skip


class PolicyConformance:
    """What slots rely on, for every policy."""

    strategy: EvictionStrategy

    def make(self, size: int = SLOTS) -> EvictionPolicy:
        return make_policy(self.strategy, size)

    def test_its_name_is_read_in_any_spelling(self):
        name = self.strategy.value
        for spelling in (self.strategy, name, self.strategy.name, name.title(), name.replace("-", "")):
            assert EvictionStrategy.parse(spelling) is self.strategy

    def test_each_pool_has_its_own(self):
        assert self.make() is not self.make()

    def test_the_only_slot_is_the_victim(self):
        policy = self.make(1)
        for key in range(3):
            policy.insert(0, EntryInfo(key))
            policy.touch(0)
            policy.update(0, EntryInfo(key))
            assert evict(policy, EntryInfo(key + 1)) == 0

    @given(STEPS)
    def test_every_slot_is_evicted_once_and_no_other(self, steps):
        """Whatever was looked up, stored again and evicted before; also by a copy."""
        policy, present = self.make(), set()
        for step, slot, key, priority in steps:
            if step == "insert" and slot not in present:
                policy.insert(slot, EntryInfo(key, priority, parent=(key + 1) % 5, depth=key))
                present.add(slot)
            elif step == "touch" and slot in present:
                policy.touch(slot)
            elif step == "update" and slot in present:
                policy.update(slot, EntryInfo(key, priority))
            elif step == "evict" and present:
                present.remove(evict(policy, EntryInfo(key, priority)))
            elif step == "copy":
                policy = copy.deepcopy(policy)
        copied = pickle.loads(pickle.dumps(policy))
        order = drain(policy, len(present))
        assert sorted(order) == sorted(present)
        assert drain(copied, len(present)) == order

    def test_an_interrupted_lookup_loses_no_slot(self):
        """Stores are marked as changes of the pool, which drops all that they leave. Lookups are not."""

        def filled():
            policy = self.make()
            for slot in range(SLOTS):
                policy.insert(slot, EntryInfo(slot, parent=slot - 1, depth=slot % 3, actions=1))
            return policy

        def look_up(policy):
            for slot in range(SLOTS):
                policy.miss(-1 - slot)
                policy.touch(slot)

        for at in range(1, lines_of(partial(look_up, filled())) + 1):
            policy = filled()
            assert traced(partial(look_up, policy), RaiseAtLine(at)).raised
            for _ in range(2):
                assert sorted(drain(copy.deepcopy(policy), SLOTS)) == list(range(SLOTS))
                look_up(policy)

    def test_what_is_not_known_breaks_nothing(self):
        """Parents that were evicted, that come later, or that are their own children; depths without order."""
        for seed in range(200):
            choose, policy, present = random.Random(seed), self.make(), set()
            for _ in range(60):
                slot, info = choose.randrange(SLOTS), known(choose, 12)
                if slot in present:
                    policy.touch(slot) if choose.random() < 0.5 else policy.update(slot, info)
                elif len(present) == SLOTS or (choose.random() < 0.2 and present):
                    present.remove(evict(policy, info))
                else:
                    policy.insert(slot, info)
                    present.add(slot)
            assert sorted(drain(policy, len(present))) == sorted(present)
