"""Which entry of a full pool is evicted. Each policy is one class in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from kvcache.eviction.base import EvictionPolicy
from kvcache.eviction.compiled import make_tree_policy
from kvcache.eviction.entries import (
    DEFAULT_PRIORITY,
    EntryInfo,
    SearchInfo,
    check_info,
    check_known,
    check_priority,
)
from kvcache.eviction.fifo import FifoPolicy
from kvcache.eviction.lru import LruPolicy
from kvcache.eviction.priority import PriorityPolicy
from kvcache.eviction.s3fifo import S3FifoPolicy
from kvcache.eviction.sieve import SievePolicy
from kvcache.eviction.tree import TreePolicy

__all__ = [
    "DEFAULT_PRIORITY",
    "EntryInfo",
    "EvictionPolicy",
    "EvictionStrategy",
    "FifoPolicy",
    "LruPolicy",
    "PriorityPolicy",
    "S3FifoPolicy",
    "SearchInfo",
    "SievePolicy",
    "TreePolicy",
    "check_info",
    "check_known",
    "check_priority",
    "make_policy",
]


class EvictionStrategy(Enum):
    """Names of the policies, as configurations spell them."""

    FIFO = "fifo"
    LRU = "lru"
    PRIORITY = "priority"
    S3_FIFO = "s3-fifo"
    SIEVE = "sieve"
    TREE = "tree"

    @classmethod
    def parse(cls, strategy: EvictionStrategy | str) -> EvictionStrategy:
        """The strategy of that name, in any case, with or without hyphens. Raises ValueError, naming the choices."""
        if isinstance(strategy, cls):
            return strategy
        for member in cls:
            if _plain(member.value) == _plain(str(strategy)):
                return member
        choices = ", ".join(member.value for member in cls)
        raise ValueError(f"unknown eviction strategy {strategy!r}: choose one of {choices}")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


_POLICIES: dict[EvictionStrategy, Callable[[int], EvictionPolicy]] = {
    EvictionStrategy.FIFO: FifoPolicy,
    EvictionStrategy.LRU: LruPolicy,
    EvictionStrategy.PRIORITY: PriorityPolicy,
    EvictionStrategy.S3_FIFO: S3FifoPolicy,
    EvictionStrategy.SIEVE: SievePolicy,
    EvictionStrategy.TREE: make_tree_policy,
}


def make_policy(strategy: EvictionStrategy, size: int) -> EvictionPolicy:
    """A fresh policy for a pool of that many slots."""
    return _POLICIES[strategy](size)
