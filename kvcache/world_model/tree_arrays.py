"""A search's steps through the trees of all environments, in NumPy. ``_tree_arrays.c`` is the same in C, compiled.

Both give the same bits: each number is computed by the same operations in the same order. The functions take the same
arguments first. All arrays are C-contiguous and are written to:

    counts: ``[3, B, N, A]``, int64, of each node's children: visits; visits that are pending, which is that they were
        selected and not counted yet; and the numbers of their nodes, 0 where there is none.
    numbers: ``[3, B, N, A]``, float64, likewise: sums of values, rewards, priors.
    bounds: ``[3, B]``, float64, of each tree: the least and the largest mean value that a node of it ever had, between
        which values are normalised; and the sum of the root's values.
    path: ``[B, D, 2]``, int64, of trees at most D deep: node and action of each edge from the root to the leaf.
    depths: ``[B]``, int64: edges of each path.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["backup", "select"]


def select(
    counts: np.ndarray, numbers: np.ndarray, bounds: np.ndarray, path: np.ndarray, depths: np.ndarray,
    ends: np.ndarray, discount: float, pb_c_base: float, pb_c_init: float,
) -> None:  # fmt: skip
    """In each tree, follow the best children to one that has no node: write ``path`` and ``depths``, and the
    last edges, to ``ends`` ``[B, 2]``, int64.

    Its edges become pending. A pending visit counts as one of the lowest value: later leaves of the same batch avoid it
    ("virtual loss").
    """
    _, pending, children = counts
    rows, nodes = np.arange(len(depths)), np.zeros(len(depths), dtype=np.int64)
    depths.fill(0)
    while len(rows):
        actions = _best(
            counts[:, rows, nodes], numbers[:, rows, nodes], bounds[:, rows], discount, pb_c_base, pb_c_init
        )
        path[rows, depths[rows], 0], path[rows, depths[rows], 1] = nodes, actions
        depths[rows] += 1
        pending[rows, nodes, actions] += 1
        below = children[rows, nodes, actions]
        rows, nodes = rows[below > 0], below[below > 0]
    ends[:] = path[np.arange(len(depths)), depths - 1]


def _best(
    counts: np.ndarray, numbers: np.ndarray, bounds: np.ndarray, discount: float, pb_c_base: float, pb_c_init: float
) -> np.ndarray:
    """Actions ``[b]`` of the highest scores, the first of equals; of nodes ``counts[:, b]``, ``numbers[:, b]``."""
    (visits, pending, _), (sums, rewards, priors), (least, most, _) = counts, numbers, bounds[:, :, None]
    taken = visits + pending
    totals = taken.sum(1, keepdims=True)
    # math's logarithm: NumPy's may differ in the last bit.
    weights = [[math.log((1 + total + pb_c_base) / pb_c_base) + pb_c_init] for total in totals[:, 0].tolist()]
    explored = np.array(weights) * priors * np.sqrt(totals) / (1 + taken)
    with np.errstate(all="ignore"):  # of children without visits, and of bounds that nothing was between yet
        values = rewards + discount * (sums / visits)
        values = np.where(most > least, (values - least) / (most - least), values) * (visits / taken)
    # Where nothing has been visited, the prior decides.
    scores = np.where(visits > 0, values, 0.0) + np.where(totals > 0, explored, priors)
    best: np.ndarray = scores.argmax(1)
    return best


def backup(
    counts: np.ndarray, numbers: np.ndarray, bounds: np.ndarray, path: np.ndarray, depths: np.ndarray,
    discount: float, node: int, rewards: np.ndarray, values: np.ndarray,
) -> None:  # fmt: skip
    """Put a node where each tree's ``path`` ends, and count what it is worth all the way up.

    Args:
        node: number of the new nodes. Where another leaf of the same batch has put one, that one stays.
        rewards: ``[B]``, float64, of the steps to the new nodes.
        values: ``[B]``, float64, of the new nodes.
    """
    (visits, pending, children), (sums, paid, _), (least, most, roots) = counts, numbers, bounds
    every, worth = np.arange(len(depths)), values.copy()

    def see(rows: np.ndarray, means: np.ndarray) -> None:
        least[rows] = np.where(means < least[rows], means, least[rows])
        most[rows] = np.where(means > most[rows], means, most[rows])

    for above in range(int(depths.max())):
        rows = every[depths > above]
        edges = (rows, *path[rows, depths[rows] - 1 - above].T)
        if above == 0:
            new = children[edges] == 0
            paid[edges] = np.where(new, rewards, paid[edges])
            children[edges] = np.where(new, node, children[edges])
        visits[edges] += 1
        pending[edges] -= 1
        sums[edges] += worth[rows]
        see(rows, sums[edges] / visits[edges])
        worth[rows] = paid[edges] + discount * worth[rows]
    roots += worth
    see(every, roots / (1 + visits[:, 0].sum(1)))
