"""``TreePolicy`` in C, where it was compiled. A copy does not need it: it is pickled as a ``TreePolicy``."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Self

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.lessons import Lessons, Trial
from kvcache.eviction.tree import Node, TreePolicy

try:
    from kvcache.eviction._tree import Tree as _Compiled
except ImportError:  # it could not be compiled
    _Compiled = None  # type: ignore[misc, assignment]

__all__ = ["make_tree_policy"]

_USEFUL = 2  # as in _tree_nodes.h


def make_tree_policy(size: int) -> EvictionPolicy:
    """A fresh ``TreePolicy``, compiled where it can be."""
    return TreePolicy(size) if _Compiled is None else CompiledTreePolicy(size)


def _copied(policy: TreePolicy) -> EvictionPolicy:
    return policy if _Compiled is None else CompiledTreePolicy.like(policy)


if _Compiled is not None:

    class CompiledTreePolicy(_Compiled, EvictionPolicy):
        """``TreePolicy`` in C."""

        def __new__(cls, size: int, lessons: Lessons | None = None) -> Self:
            return super().__new__(cls, size, lessons or Lessons())

        def __init__(self, size: int, lessons: Lessons | None = None) -> None:
            self.lessons.begin()

        def successor(self) -> EvictionPolicy:
            return type(self)(self.size, self.lessons)

        def __reduce__(self) -> tuple[Any, ...]:
            return _copied, (self.in_python(),)

        def in_python(self) -> TreePolicy:
            """The same in Python."""
            policy, order = TreePolicy(self.size), self.ordered()
            nodes = {id(each): _in_python(each) for each in (*order, *self.looked_up.values()) if each is not None}
            policy._lessons, policy._trial = self.lessons, Trial(self.lessons, self.size)
            policy._trial._pairs.update(self.pairs)
            policy._nodes = {key: nodes[id(each)] for key, each in self.nodes.items()}
            looked_up = {key: None if each is None else nodes[id(each)] for key, each in self.looked_up.items()}
            policy._looked_up = looked_up
            policy._by_slot = {each.slot: nodes[id(each)] for each in order}
            for each in order:
                (policy._by_recency if each.where == _USEFUL else policy._useless)[each.slot] = None
            for each in sorted(order, key=attrgetter("placed")):
                if each.where == _USEFUL:
                    policy._place_by_depth(nodes[id(each)])
            policy._extended.update(self.extended)
            policy._envs.update(self.envs)
            policy._stores, policy._shares_tokens = bool(self.stores), bool(self.shares_tokens)
            return policy

        @classmethod
        def like(cls, policy: TreePolicy) -> CompiledTreePolicy:
            """The same in C."""
            made = cls.__new__(cls, policy._size, policy._lessons)
            every = (*policy._by_slot.values(), *policy._looked_up.values())
            nodes = {id(each): made.lone_node(*_attributes(each)) for each in every if each is not None}
            made.nodes.update({key: nodes[id(each)] for key, each in policy._nodes.items()})
            made.looked_up.update(
                {key: None if each is None else nodes[id(each)] for key, each in policy._looked_up.items()}
            )
            for slot in policy._useless:
                made.place_node(nodes[id(policy._by_slot[slot])], False)
            for level in policy._by_depth.values():
                for slot in level:
                    made.place_node(nodes[id(policy._by_slot[slot])], True)
            for slot in policy._by_recency:
                made.renew(slot)
            made.pairs.update(policy._trial._pairs)
            made.extended.update(policy._extended)
            made.envs.update(policy._envs)
            made.stores, made.shares_tokens = int(policy._stores), int(policy._shares_tokens)
            return made


def _attributes(node: Any) -> tuple[Any, ...]:
    return (
        node.slot, node.key, node.parent, node.depth, node.is_whole, node.actions, node.stores, node.lookups
    )  # fmt: skip


def _in_python(node: Any) -> Node:
    slot, key, parent, depth, is_whole, actions, stores, lookups = _attributes(node)
    return Node(slot, key, parent, depth, bool(is_whole), actions or None, stores, lookups)
