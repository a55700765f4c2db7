"""The trees of one search, those of all environments in the same arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvcache.eviction import SearchInfo
from kvcache.world_model.inference import Inference

if TYPE_CHECKING:
    from kvcache.world_model.search import SearchConfig

try:
    import kvcache.world_model._tree_arrays as arrays
except ImportError:  # it could not be compiled
    import kvcache.world_model.tree_arrays as arrays  # type: ignore[no-redef]

__all__ = ["Leaves", "Trees"]


@dataclass(frozen=True)
class Leaves:
    """What is to be inferred next: k states of each tree; the first of all trees, then the second.

    Attributes:
        latents: ``[k x B, 1, E]``, of the states above.
        actions: ``[k x B]``, that lead from there.
        depths: ``[k, B]``, of the leaves; the root's children are at 1.
        keys: ``[k x B]``, of the contexts of ``latents``, where keys are chained.
    """

    latents: np.ndarray
    actions: np.ndarray
    depths: np.ndarray
    keys: list[int] | None

    def repeat(self, envs: Sequence[int] | None) -> Sequence[int] | None:
        """The environments of all rows, from those of the trees; None where they are the first ones in order."""
        leaves, rows = self.depths.shape
        if leaves == 1:
            return envs
        return [*(range(rows) if envs is None else envs)] * leaves


class Trees:
    """A tree of each environment, grown by one simulation after the other.

    Args:
        config: of the search.
        roots: what the model said of them.
        noise: ``[B, A]``, that is mixed into the roots' priors.
    """

    def __init__(self, config: SearchConfig, roots: Inference, noise: np.ndarray) -> None:
        rows, actions = roots.policy_logits.shape
        nodes = 1 + config.num_simulations
        self._constants = float(config.discount), float(config.pb_c_base), float(config.pb_c_init)
        self._counts = np.zeros((3, rows, nodes, actions), dtype=np.int64)
        self._numbers = np.zeros((3, rows, nodes, actions))
        self._bounds = np.stack([np.full(rows, np.inf), np.full(rows, -np.inf), roots.values.astype(np.float64)])
        self._latents = np.empty((rows, nodes, *roots.latents.shape[1:]), roots.latents.dtype)
        self._keys: list[list[int]] = []  # of the nodes, [N][B], where keys are chained
        self._nodes = 0
        # Of the leaves that are inferred now: paths from the root, their lengths, and their last edges.
        most = min(config.leaves, config.num_simulations)
        deepest = math.ceil(config.num_simulations / most)  # an inference makes no tree deeper by more than one
        self._paths = np.empty((most, rows, deepest, 2), dtype=np.int64)
        self._depths = np.empty((most, rows), dtype=np.int64)
        self._ends = np.empty((most, rows, 2), dtype=np.int64)
        self._leaves = 0
        self._rows = np.arange(rows)
        self._add(roots, slice(None))
        priors = self._numbers[2, :, 0]
        priors[:] = (1 - config.noise_fraction) * priors + config.noise_fraction * noise

    @property
    def visits(self) -> np.ndarray:
        """Visits of the roots' children ``[B, A]``."""
        return self._counts[0, :, 0].copy()

    @property
    def values(self) -> np.ndarray:
        """The roots' ``[B]``: means of what the model said of them and of what was counted since."""
        values: np.ndarray = self._bounds[2] / (1 + self._counts[0, :, 0].sum(1))
        return values

    def select(self, leaves: int) -> Leaves:
        """Choose that many leaves of each tree; ``expand`` takes what is inferred of them."""
        self._leaves = leaves
        for leaf in range(leaves):
            own = self._paths[leaf], self._depths[leaf], self._ends[leaf]
            arrays.select(self._counts, self._numbers, self._bounds, *own, *self._constants)
        parents, actions = self._ends[:leaves, :, 0], self._ends[:leaves, :, 1]
        keys = None
        if self._keys:
            keys = [self._keys[node][row] for nodes in parents.tolist() for row, node in enumerate(nodes)]
        latents = self._latents[self._rows, parents].reshape(parents.size, *self._latents.shape[2:])
        return Leaves(latents, actions.ravel(), self._depths[:leaves].copy(), keys)

    @property
    def info(self) -> SearchInfo:
        """What the search knows of the selected leaves, for a cache that wants it."""
        leaves, actions = self._leaves, self._counts.shape[3]
        parents, taken = self._ends[:leaves, :, 0], self._ends[:leaves, :, 1]
        visits = self._counts[0, self._rows, parents].sum(-1)
        priors = self._numbers[2, self._rows, parents, taken]
        depths = self._depths[:leaves]
        return SearchInfo(depths.ravel().tolist(), visits.ravel().tolist(), priors.ravel().tolist(), actions)

    def expand(self, found: Inference) -> None:
        """Make nodes of the selected leaves, and count their values."""
        rewards, values = found.rewards.astype(np.float64), found.values.astype(np.float64)
        count, discount = len(self._rows), self._constants[0]
        for leaf in range(self._leaves):
            rows = slice(leaf * count, (leaf + 1) * count)
            node, own = self._add(found, rows), (self._paths[leaf], self._depths[leaf])
            arrays.backup(self._counts, self._numbers, self._bounds, *own, discount, node, rewards[rows], values[rows])

    def _add(self, found: Inference, rows: slice) -> int:
        """Keep what is known of new nodes, one of each tree, and return their number."""
        node, logits = self._nodes, found.policy_logits[rows]
        weights = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
        self._numbers[2, :, node] = weights / weights.sum(1, keepdims=True)
        self._latents[:, node] = found.latents[rows]
        if found.keys is not None:
            self._keys.append(found.keys[rows])
        self._nodes += 1
        return node
