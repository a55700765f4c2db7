"""Whether pools that share memory can be trusted after a change that was interrupted."""

from __future__ import annotations

import logging
from threading import get_ident
from typing import Any, Protocol

from kvcache.threads import OneThread

__all__ = ["Integrity"]

_log = logging.getLogger(__name__)


class Member(Protocol):
    """A pool that shares memory with others."""

    def reset(self) -> None:
        """Start anew, empty, whatever state an interrupted change has left."""


class Integrity(OneThread):
    """Marks changes of one thread, so that one which was interrupted is noticed, at whatever line that was.

    A change checks everything first, calls ``begin``, writes, and calls ``end``. Where ``end`` was not reached, by an
    error or by Ctrl-C, nobody can say which parts were written. The next call then empties all members.

    Attributes:
        changing: whether a change has begun and not ended.
        members: all pools that share memory.
    """

    __slots__ = ("changing", "members")

    def __init__(self) -> None:
        super().__init__()
        self.changing = False
        self.members: list[Member] = []

    def __reduce__(self) -> tuple[Any, ...]:
        self.check_copy()
        return type(self), (), (self.changing, self.members)

    def __setstate__(self, state: tuple[bool, list[Member]]) -> None:
        self.changing, self.members = state

    def take(self) -> None:
        """As in ``OneThread``; empties all members if the last change was interrupted."""
        if self.changing or get_ident() != self.ident:
            super().take()
            self._mend()

    def check(self) -> None:
        """As in ``OneThread``; empties all members if the last change was interrupted."""
        if self.changing or get_ident() != self.ident:
            super().check()
            self._mend()

    def begin(self) -> None:
        """A change begins; one that was interrupted is repaired first."""
        if self.changing or get_ident() != self.ident:
            self.check()
        self.changing = True

    def end(self) -> None:
        """The change is complete."""
        self.changing = False

    def _mend(self) -> None:
        if self.changing:
            self.repair()

    def repair(self) -> None:
        """Empty all members after an interrupted change."""
        for member in self.members:
            member.reset()
        self.changing = False
        _log.warning("a change of the cache was interrupted: all its contexts were dropped, and will be made anew")
