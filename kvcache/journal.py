"""A record of the appends to a block: its owner finds other writes by comparing it with torch's own count."""

from __future__ import annotations

import sys

__all__ = ["Journal"]


class Journal:
    """The appends to a block since it was last cleared.

    Attributes:
        writes: number of appends; each is one operation on one layer's keys or values.
        lowest: the lowest position written to; ``sys.maxsize`` where nothing was.
        dropped: whether the oldest tokens were dropped, so that all others moved.
    """

    __slots__ = ("dropped", "lowest", "writes")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.writes = 0
        self.lowest = sys.maxsize
        self.dropped = False

    def note(self, position: int) -> None:
        self.writes += 1
        self.lowest = min(self.lowest, position)
