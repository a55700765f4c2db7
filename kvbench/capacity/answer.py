"""How large is large enough: the smallest pool of each policy that answers nearly what an unlimited one does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kvbench.capacity.curves import BOUNDS, Sized

__all__ = ["Smallest", "smallest_within"]

_FINENESS = 100  # a size is found to a hundredth of itself

Count = Callable[[Sequence[Sized]], pd.DataFrame]  # outcomes of lines, as ``count_lines`` has them


@dataclass
class Smallest:
    """The smallest pool of a policy that is known to have enough hits.

    Attributes:
        policy, unit: as in ``Sized``.
        size: of the pool.
        hits: that it has.
        too_small: the largest size below it that is known to have too few.
    """

    policy: str
    unit: str
    size: int
    hits: int
    too_small: int = 0

    def learn(self, size: int, hits: int, enough: float) -> None:
        """Note the hits of a size."""
        if hits >= enough and size <= self.size:
            self.size, self.hits = size, hits
            self.too_small = min(self.too_small, size - 1)
        elif hits < enough and size < self.size:
            self.too_small = max(self.too_small, size)

    @property
    def next_size(self) -> int | None:
        """The size to try next; None where it is found."""
        if self.size - self.too_small <= max(1, self.size // _FINENESS):
            return None
        middle = round(math.sqrt(self.size * max(self.too_small, 1)))
        return min(max(middle, self.too_small + 1), self.size - 1)


def smallest_within(
    count: Count, known: pd.DataFrame, most: Mapping[str, int], unlimited: int, share: float
) -> list[Smallest]:
    """Of every policy and unit in ``known``, but the bounds: the smallest pool with enough hits, by halving.

    It takes for granted that a larger pool has more hits. Where FIFO has fewer (Belady's anomaly), a smaller pool than
    the one that is found may do too.

    Args:
        count: counts the outcomes of lines.
        known: outcomes that are counted already.
        most: by unit: a size that never evicts.
        unlimited: hits that it has.
        share: of these hits that is enough, 0 to 1.
    """
    lines = known[~known["policy"].isin(BOUNDS)][["policy", "unit"]].drop_duplicates().itertuples(index=False)
    found = {(policy, unit): Smallest(policy, unit, most[unit], unlimited) for policy, unit in lines}
    while len(known):
        for policy, unit, size, hits in known[["policy", "unit", "size", "hit"]].itertuples(index=False):
            if (policy, unit) in found:
                found[policy, unit].learn(size, hits, share * unlimited)
        tried = [(each, each.next_size) for each in found.values()]
        open_lines = [Sized(each.policy, each.unit, [size]) for each, size in tried if size is not None]
        known = count(open_lines) if open_lines else known.head(0)
    return list(found.values())
