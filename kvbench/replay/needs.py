"""Memory that a replay will need, from a trace's header and its stores: before anything is allocated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvbench.measure.free_memory import require_memory
from kvbench.replay.histories import NEWEST
from kvbench.trace.steps import Step
from kvcache import TOKENS_PER_STEP, CacheConfig, Scope

__all__ = ["Needs", "bytes_of_pools", "require_for_replay"]

_CONTEXT_BYTES = 500  # of a context that a checked pass remembers
_STORE_BYTES = {
    False: 50,
    True: 500,
}  # of what is counted, for each store; of times too where it is timed

_SLOT_BYTES = 200  # of a slot without its content: lists, and dictionaries of keys
_BATCHES = 4  # copies of a batch at once: rows, batch, what the model appends, what is checked
_GROWTH = 2.25  # shared memory grows by a quarter, and old and new are there at once
_REMEMBERED = 4096  # tokens, and contexts with their tokens' numbers
_ALWAYS = 2**26  # whatever is replayed


@dataclass(frozen=True)
class Needs:
    """What of a replay decides its memory.

    Attributes:
        roots: contexts stored into an environment's init pool -> environments with so many.
        nodes: contexts stored into the recurrent pool, of the whole trace.
        rows: most rows of a batch.
    """

    roots: Mapping[int, int]
    nodes: int
    rows: int

    @classmethod
    def of(cls, steps: Iterable[Step]) -> Needs:
        roots, nodes, rows = Counter[int](), 0, 0
        for step in steps:
            rows = max(rows, len(step.envs))
            if step.scope is Scope.NODE:
                nodes += len(step.keys)
            elif step.keys:
                roots.update(step.envs)
        return cls(Counter(roots.values()), nodes, rows)

    @property
    def stored(self) -> int:
        """All contexts."""
        return self.nodes + sum(stores * envs for stores, envs in self.roots.items())


def bytes_of_pools(backend: str, config: CacheConfig, needs: Needs) -> int:
    """Of one backend at most: its pools, and a batch."""
    geometry, entry = config.geometry, config.entry_bytes
    init = sum(min(config.init_entries, stores) * envs for stores, envs in needs.roots.items())
    recur = min(config.recur_entries, needs.nodes)
    slots = config.init_entries * geometry.env_num + config.recur_entries
    storage = backend.partition(":")[2] or ("" if backend.startswith("legacy") else config.storage)
    if storage.startswith(("paged", "auto")):  # contexts share the tokens that they have in common
        each = geometry.context_length if config.recur_pool_bytes else TOKENS_PER_STEP
        reserved = each * config.recur_entries
        tokens = 2 * TOKENS_PER_STEP * (init + recur) + reserved
        most = (init + recur) * geometry.context_length + reserved
        if config.exact or storage.endswith("exact"):  # contexts that have slid share less
            tokens = most
        contents = _GROWTH * min(tokens, most) * entry / geometry.context_length
    elif storage == "slab":  # its recurrent pool is allocated whole
        contents = _GROWTH * (init + config.recur_entries) * entry
    else:
        contents = (init + recur) * entry
    tables = slots * (_SLOT_BYTES + 8 * (geometry.context_length + 1) * (storage != ""))
    return int(contents) + tables + _BATCHES * max(needs.rows, geometry.env_num) * entry


def require_for_replay(name: str, config: CacheConfig, backends: Sequence[str], needs: Needs, at_once: bool) -> None:
    """Raise MemoryShortError where a replay would need more memory than is free.

    Args:
        name: of what is replayed, as in "a replay of FILE".
        at_once: whether all backends are there at the same time, as in a timed pass.
    """
    pools = [bytes_of_pools(each, config, needs) for each in backends]
    geometry = config.geometry
    token = geometry.num_layers * 2 * geometry.embed_dim
    contents = geometry.context_length * token + 2 * config.entry_bytes  # positions, a generated context
    contents += min(_REMEMBERED, 2 * needs.stored) * (token + 8 * geometry.context_length)
    contents += min(needs.stored, 2 * NEWEST + config.init_entries + config.recur_entries) * _CONTEXT_BYTES
    contents += needs.stored * _STORE_BYTES[at_once]
    needed = (sum(pools) if at_once else max(pools, default=0)) + contents + _ALWAYS
    advice = "give a smaller --capacity, fewer --backend or fewer --searches, or a machine with more memory"
    require_memory(name, needed, advice, config.device)
