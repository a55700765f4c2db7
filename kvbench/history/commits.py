"""Commits of a repository, as git has them: order, author, subject, and what is new since one of them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kvbench.errors import FileError
from kvbench.text import clean

__all__ = ["Commit", "Commits", "HistoryError", "find_commit", "find_measured", "read_commits"]

DEFAULT_NUMBER = 10  # of commits that count as new where nothing was tagged
_SHORT = 8  # digits of a hash
_MOST_DIGITS = 12  # of a number of commits
_FEWEST_DIGITS, _MOST_NAMED = 4, 5  # of the name of a commit; of commits in an error
_FIELDS = "%H%x00%an%x00%s"  # no text of a commit holds a NUL


class HistoryError(FileError):
    """A repository that cannot answer: which one, and what is wrong."""


@dataclass(frozen=True)
class Commit:
    """One commit; ``name`` is its full hash, ``subject`` the first line of its message."""

    name: str
    author: str
    subject: str


@dataclass(frozen=True)
class Commits:
    """A repository's history: every commit, parents before children, and the names of those that count as new.

    ``described`` says which are new: "since v1.0", "in the last 10 commits".
    """

    known: tuple[Commit, ...] = ()
    new: frozenset[str] = frozenset()
    described: str = ""

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each is in ``known``."""
        return {commit.name: place for place, commit in enumerate(self.known)}

    def find(self, name: str) -> Commit | None:
        """The commit of that full hash."""
        place = self.places.get(name)
        return None if place is None else self.known[place]

    def behind(self, name: str) -> int | None:
        """How many commits came after one; None where the repository does not know it."""
        place = self.places.get(name)
        return None if place is None else len(self.known) - 1 - place

    def after(self, previous: str, name: str) -> tuple[str, ...]:
        """Commits after one up to another, which is the last of them; that one alone where one is not known."""
        first, last = self.places.get(previous), self.places.get(name)
        if first is None or last is None or first >= last:
            return (name,)
        return tuple(commit.name for commit in self.known[first + 1 : last + 1])

    def is_new(self, name: str) -> bool:
        """Whether a commit counts as new; one that is not in the repository does not."""
        return name in self.new


def read_commits(repository: str | Path, since: str = "") -> Commits:
    """What git knows of a checkout's history; nothing where there is no repository.

    New is what came after ``since``: a tag or another revision, or a number of commits; empty for the last tag, and
    where there is none for the last ``DEFAULT_NUMBER`` commits.

    Raises HistoryError: ``since`` is no revision of the repository, and no number of commits from 1 on.
    """
    if since.isdecimal() and (len(since) > _MOST_DIGITS or not int(since)):
        fault = f"the last {since[:_MOST_DIGITS]} commits are none: --since wants a number from 1 on, or a revision"
        raise HistoryError(repository, fault)
    options = ["-z", "--topo-order", "--reverse", "--no-show-signature", "--encoding=UTF-8", f"--format={_FIELDS}"]
    log = _git(repository, "log", *options)
    if log is None:
        if since and not since.isdecimal():
            raise HistoryError(repository, f"no git repository: there is no {since!r} in it")
        return Commits()
    texts = [clean(_decoded(each)) for each in log.split(b"\0")]
    known = tuple(map(Commit, texts[::3], texts[1::3], texts[2::3]))
    last = b"" if since else _git(repository, "describe", "--tags", "--abbrev=0") or b""
    tag = "" if since.isdecimal() else since or os.fsdecode(last.strip())
    return _since(repository, known, tag) if tag else _last(known, int(since or DEFAULT_NUMBER))


def find_commit(repository: str | Path, revision: str) -> str:
    """The full hash of a revision; empty where the repository, or git, does not know it."""
    name = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return "" if name is None else name.decode().strip()


def find_measured(repository: str | Path, measured: Sequence[str], name: str) -> str:
    """The full hash of a measured commit: of the one that begins so, or of what the repository calls so.

    Raises HistoryError: there is none, or several begin so.
    """
    alike = [each for each in measured if each.startswith(name.lower())] if len(name) >= _FEWEST_DIGITS else []
    full = alike[0] if len(alike) == 1 else find_commit(repository, name)
    if full in measured:
        return full
    if alike:
        raise HistoryError(repository, f"{name!r} may be {alike[0][:12]} or {alike[1][:12]}: give more digits")
    fault = f"{name!r} was not measured" if full else f"it has no commit {name!r}"
    some = ", ".join(each[:8] for each in measured[-_MOST_NAMED:])
    raise HistoryError(repository, f"{fault}: the last measured commits are {some}" if some else fault)


def _since(repository: str | Path, known: tuple[Commit, ...], tag: str) -> Commits:
    name = find_commit(repository, tag)
    # What is no ancestor of HEAD has commits of its own, which say nothing of those that HEAD has and it lacks.
    new = _git(repository, "rev-list", f"{name}..HEAD") if name else None
    if new is None:
        raise HistoryError(repository, f"{tag!r} is no tag, commit or number of commits")
    named = tag[:_SHORT] if re.fullmatch("[0-9a-f]{40}", tag) else tag
    return Commits(known, frozenset(new.decode().split()), f"since {clean(named)}")


def _last(known: tuple[Commit, ...], number: int) -> Commits:
    new = frozenset(commit.name for commit in known[-number:])
    if number >= len(known):
        return Commits(known, new, f"in all of its {len(known)} commits" if len(known) > 1 else "in its only commit")
    return Commits(known, new, "in the last commit" if number == 1 else f"in the last {number} commits")


def _decoded(text: bytes) -> str:
    """A commit's text; one that is not UTF-8, and does not say what else it is, is taken for Latin-1 of Windows."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace")


def _git(repository: str | Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
