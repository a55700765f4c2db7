"""Memory that searches will need, from the sizes that a user asks for: before anything is allocated."""

from __future__ import annotations

from collections.abc import Sequence

from kvbench.measure.free_memory import require_memory
from kvbench.replay.needs import Needs, bytes_of_pools
from kvcache import CacheConfig, Geometry

__all__ = ["require_for_searches", "require_for_trees"]

_RECORDED_EVENT_BYTES = 200  # of one event while its trace is written: all are put into one file at the end
_EVENTS_PER_ROW = 4  # of one environment in one inference
_NODE_BYTES = 2_000  # of a node of a search tree, without its latent
_ACTION_BYTES = 48  # of each of its actions
_RESULT_BYTES = 1_000  # of a search that is kept, for one environment
_WEIGHTS = 16  # squares of the embedding's width in a layer: 12, and what is around the layers
_FLOAT = 4
_ALWAYS = 2**26


def require_for_searches(
    name: str, shape: Geometry, caches: Sequence[str], searches: int, recur_slots: int | None = None, leaves: int = 1
) -> None:
    """Raise MemoryShortError where searches over world models would need more memory than is free.

    Args:
        name: of what is done, as in "this search".
        leaves: of each environment in one batch.
        caches: of the models that are there at once; one beside another for validation counts as two.
    """
    config, width = CacheConfig(shape, recur_pool_size=recur_slots), shape.embed_dim
    rows = shape.env_num * min(leaves, shape.num_simulations)
    stored = Needs({searches: shape.env_num}, searches * shape.num_simulations * shape.env_num, rows)
    weights = _FLOAT * width * (_WEIGHTS * shape.num_layers * width + 2 * shape.context_length)
    trees = shape.env_num * (shape.num_simulations * (_NODE_BYTES + _FLOAT * width) + searches * _RESULT_BYTES)
    needed = sum(weights + trees + bytes_of_pools(each, config, stored) for each in caches)
    advice = "give fewer --env-num, --simulations, --leaves, --searches or --backend, or a smaller --geometry"
    require_memory(name, needed + _ALWAYS, advice)


def require_for_trees(shape: Geometry, searches: int, num_actions: int) -> None:
    """The same for a synthetic trace, which has no model; and for the events of ``searches``."""
    nodes = shape.env_num * (shape.num_simulations + 1)
    needed = nodes * (_NODE_BYTES + num_actions * _ACTION_BYTES + searches * _EVENTS_PER_ROW * _RECORDED_EVENT_BYTES)
    require_memory("this trace", needed + _ALWAYS, "give fewer --searches or --actions, or a smaller --geometry")
