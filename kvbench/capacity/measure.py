"""All that ``kvbench capacity`` says of a trace: curves by slots and by pages, and the pools that are large enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from kvbench.capacity.answer import Smallest, smallest_within
from kvbench.capacity.curves import BOUNDS, ENTRIES, PAGES, STRATEGIES, Sized, count_lines
from kvbench.capacity.requests import Requests
from kvbench.replay.hierarchy import INIT

__all__ = ["ENOUGH", "Measured", "Sizes", "measure"]

ENOUGH = 0.99  # of an unlimited pool's hits


@dataclass(frozen=True)
class Sizes:
    """What sizes of one kind of pool take: in pages as many bytes as in full entries.

    Attributes:
        requests: of the trace.
        pool: the kind, ``"recur"`` or ``"init"``.
        itemsize: bytes of one element.
    """

    requests: Requests
    pool: str
    itemsize: int

    @property
    def most(self) -> dict[str, int]:
        """By unit: a size that never evicts."""
        entries = max(self.requests.census.most_entries[self.pool], 1)
        return {ENTRIES: entries, PAGES: self.pages(entries)}

    def pages(self, entries: int) -> int:
        """In the memory of so many full entries."""
        return entries * self.requests.geometry.context_length

    def bytes_of(self, unit: str, size: int) -> int:
        """Of all pools of the kind together."""
        geometry = self.requests.geometry
        pools = geometry.env_num if self.pool == INIT else 1
        each = geometry.entry_bytes(self.itemsize)
        return pools * size * (each if unit == ENTRIES else each // geometry.context_length)


@dataclass(frozen=True)
class Measured:
    """The answer.

    Attributes:
        points: as ``count_lines`` has them, and ``bytes``.
        unlimited: the one row of a pool that never evicts, the same way.
        smallest: of each policy but the bounds.
    """

    points: pd.DataFrame
    unlimited: pd.DataFrame
    smallest: list[Smallest]


def measure(sizes: Sizes, policies: Sequence[str], entries: Sequence[int]) -> Measured:
    """Count the outcomes of all policies at all sizes, then look for the smallest pools that are large enough.

    Args:
        policies: out of ``POLICIES``. Legacy has no pages.
        entries: sizes in full entries; pages are tried in the same memory.
    """
    requests = sizes.requests

    def count(lines: Sequence[Sized]) -> pd.DataFrame:
        return count_lines(
            requests, requests.geometry, lines, sizes.pool, census=requests.census, sample=requests.sample
        )

    paged = [each for each in policies if each in (*STRATEGIES, *BOUNDS)]
    lines = [Sized(each, ENTRIES, entries) for each in policies]
    lines += [Sized(each, PAGES, [sizes.pages(size) for size in entries]) for each in paged]
    lines.append(Sized(STRATEGIES[0], ENTRIES, [sizes.most[ENTRIES]]))
    table = count(lines)
    points, unlimited = table.iloc[:-1], table.iloc[-1:]
    smallest = smallest_within(count, points, sizes.most, int(unlimited["hit"].iloc[0]), ENOUGH)
    return Measured(_with_bytes(points, sizes), _with_bytes(unlimited, sizes), smallest)


def _with_bytes(table: pd.DataFrame, sizes: Sizes) -> pd.DataFrame:
    places = table[["unit", "size"]].itertuples(index=False)
    return table.assign(bytes=[sizes.bytes_of(unit, size) for unit, size in places])
