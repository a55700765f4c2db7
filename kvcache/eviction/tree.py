"""For search trees: evicts what the search will not need again. ``_tree.c`` is the same in C, where it was compiled."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.entries import EntryInfo
from kvcache.eviction.lessons import Lessons, Trial

__all__ = ["Node", "TreePolicy"]

_LONGEST_PATH = 16  # entries above one that is looked up which count as used with it
_LARGEST_BATCH = 65_536  # rows: more lookups without a store are of no batch
_KEPT_FREE = 2  # entries of each environment beside its path, where every entry takes a whole slot


@dataclass(slots=True)
class Node:
    """An entry of the pool.

    Attributes:
        is_whole: whether its context goes back to the root. If a context on its path was lost, the model began anew.
        stores: how often it was stored; each may be extended by every action.
        lookups: each of them extends it.
        actions: as in ``EntryInfo``.
    """

    slot: int
    key: Hashable
    parent: Hashable
    depth: int
    is_whole: bool
    actions: int | None
    stores: int = 1
    lookups: int = 0


class TreePolicy(EvictionPolicy):
    """Evicts first what is of no use, the oldest first:

    - entries whose history is lost: a context above them was evicted before it was extended to theirs;
    - entries that were extended by every action already.

    Among the others it follows the better of two orders. By *recency* the entry goes that was used the longest time
    ago; a lookup uses the entry and those above it. By *depth* the deepest entry goes, and of these the newest. Where
    the two disagree, both candidates are remembered: the one that is asked for first should not have been evicted.

    What was learned stays when the pool is cleared: which order is better, and how often entries are extended at most,
    where ``EntryInfo.actions`` does not say it.
    """

    def __init__(self, size: int, lessons: Lessons | None = None) -> None:
        super().__init__(size)
        self._lessons = lessons or Lessons()
        self._lessons.begin()
        self._trial = Trial(self._lessons, size)
        self._nodes: dict[Hashable, Node] = {}
        self._by_slot: dict[int, Node] = {}
        # Slots, each in the first one or in the other two. Of an interrupted lookup it may be in all.
        self._useless: OrderedDict[int, None] = OrderedDict()
        self._by_recency: OrderedDict[int, None] = OrderedDict()
        self._by_depth: dict[int, OrderedDict[int, None]] = {}
        self._depths: list[int] = []  # the keys of the above, in order
        self._extended: OrderedDict[Hashable, None] = OrderedDict()  # evicted because all was extended
        self._looked_up: dict[Hashable, Node | None] = {}  # since the last batch was stored; None where it was missed
        self._stores = False  # whether the present batch is being stored
        self._envs: set[int | None] = set()
        self._shares_tokens = False

    def successor(self) -> TreePolicy:
        return TreePolicy(self._size, self._lessons)

    def insert(self, slot: int, info: EntryInfo) -> None:
        depth, is_whole = self._grown(info)
        node = Node(slot, info.key, info.parent, depth, is_whole, info.actions)
        self._nodes[info.key] = self._by_slot[slot] = node
        self._place(node)

    def update(self, slot: int, info: EntryInfo) -> None:
        node, grown = self._by_slot[slot], self._grown(info)
        self._take_out(node)
        node.stores += 1
        node.parent, (node.depth, node.is_whole) = info.parent, grown
        self._place(node)

    def touch(self, slot: int) -> None:
        node = self._by_slot[slot]
        self._note(node.key, node)
        node.lookups += 1
        if node.lookups % node.stores == 0:
            self._lessons.extended(node.lookups // node.stores)
        if not self._is_useful(node) and node.slot in self._by_recency:
            self._retire(node)
        self._use_path(node)

    def miss(self, key: Hashable) -> None:
        self._note(key, None)
        if key in self._extended:
            del self._extended[key]
            self._lessons.asked_again()

    def remove(self, slot: int) -> None:
        node = self._by_slot.pop(slot)
        self._take_out(node)
        if self._nodes.get(node.key) is node:
            del self._nodes[node.key]
        if node.is_whole and not self._is_useful(node):
            self._extended[node.key] = None
            if len(self._extended) > self._size:
                self._extended.popitem(last=False)

    def victim(self, incoming: EntryInfo) -> int:
        if self._useless:
            return next(iter(self._useless))
        by_recency = next(iter(self._by_recency))
        by_depth = next(reversed(self._by_depth[self._depths[-1]]))
        self._trial.nominate(self._by_slot[by_recency].key, self._by_slot[by_depth].key)
        return by_recency if self._lessons.follows_recency else by_depth

    # The tree.

    def _note(self, key: Hashable, node: Node | None) -> None:
        """A key is looked up, of a new batch if one was stored."""
        if self._stores or len(self._looked_up) == _LARGEST_BATCH:
            self._looked_up, self._stores = {}, False
        self._looked_up[key] = node
        self._trial.asked(key)

    def _grown(self, info: EntryInfo) -> tuple[int, bool]:
        """The depth of an entry that is stored, and whether its history is whole."""
        self._stores = True
        self._envs.add(info.env)
        if info.tokens is not None and info.new_tokens is not None and info.new_tokens < info.tokens:
            self._shares_tokens = True
        parent = self._looked_up.get(info.parent) or self._nodes.get(info.parent)
        depth = info.depth
        if depth is None:
            depth = 1 if parent is None else parent.depth + 1
        if info.parent in self._looked_up:
            parent = self._looked_up[info.parent]
            return depth, parent is not None and parent.is_whole
        return depth, True  # it grew from an entry of another pool, or from nothing

    def _use_path(self, node: Node) -> None:
        """Make an entry and those above it the ones used last, in the order from it upwards."""
        length = _LONGEST_PATH
        if not self._shares_tokens:  # each has its price: then no environment's path takes the others' slots
            length = min(length, max(1, len(self._nodes) // len(self._envs) - _KEPT_FREE))
        above: Node | None = node
        for _ in range(length):
            if above is None:
                break
            if above.slot in self._by_recency:
                self._by_recency.move_to_end(above.slot)
            above = self._nodes.get(above.parent)

    # The orders.

    def _is_useful(self, node: Node) -> bool:
        most = node.actions or self._lessons.most_children
        return node.is_whole and (most is None or node.lookups < most * node.stores)

    def _place(self, node: Node) -> None:
        if not self._is_useful(node):
            self._useless[node.slot] = None
            return
        self._by_recency[node.slot] = None
        self._place_by_depth(node)

    def _place_by_depth(self, node: Node) -> None:
        if node.depth not in self._by_depth:
            self._by_depth[node.depth] = OrderedDict()
            insort(self._depths, node.depth)
        self._by_depth[node.depth][node.slot] = None

    def _retire(self, node: Node) -> None:
        """Move a useless entry behind the others. A lookup may be interrupted at any line: it is never in no order."""
        self._useless[node.slot] = None
        self._by_recency.pop(node.slot, None)
        self._by_depth[node.depth].pop(node.slot, None)

    def _take_out(self, node: Node) -> None:
        for order in (self._useless, self._by_recency):
            order.pop(node.slot, None)
        level = self._by_depth.get(node.depth)
        if level is None:
            return
        level.pop(node.slot, None)
        if not level:
            del self._by_depth[node.depth]
            del self._depths[bisect_left(self._depths, node.depth)]
