from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Self

from kvcache.eviction.entries import EntryInfo
from kvcache.eviction.lessons import Lessons

class Node:
    slot: int
    key: Hashable
    parent: Hashable
    depth: int
    is_whole: int
    actions: int
    stores: int
    lookups: int
    placed: int
    where: int

class Tree:
    lessons: Lessons
    pairs: OrderedDict[Hashable, tuple[Hashable, int]]
    nodes: dict[Hashable, Node]
    looked_up: dict[Hashable, Node | None]
    extended: OrderedDict[Hashable, None]
    envs: set[int | None]
    stores: int
    shares_tokens: int
    size: int
    def __new__(cls, size: int, lessons: Lessons) -> Self: ...
    def insert(self, slot: int, info: EntryInfo) -> None: ...
    def update(self, slot: int, info: EntryInfo) -> None: ...
    def touch(self, slot: int) -> None: ...
    def miss(self, key: Hashable) -> None: ...
    def remove(self, slot: int) -> None: ...
    def victim(self, incoming: EntryInfo) -> int: ...
    def ordered(self) -> list[Node]: ...
    def lone_node(self, *attributes: Any) -> Node: ...
    def place_node(self, node: Node, is_useful: bool) -> None: ...
    def renew(self, slot: int) -> None: ...
