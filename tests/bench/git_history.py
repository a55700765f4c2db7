"""Small repositories for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["make_history"]

WHEN = "2026-11-21T00:00:00+00:00"  # all at once: order is the repository's, not the clock's


def make_history(folder: Path, subjects: Sequence[str], tag: int | None = None) -> tuple[Path, list[str]]:
    """A repository of empty commits: its folder, and their names. ``tag`` is the place of the one called v1."""
    environment = {**os.environ, "GIT_AUTHOR_DATE": WHEN, "GIT_COMMITTER_DATE": WHEN}
    identity = ["-c", "user.name=somebody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *identity, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    folder.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet")
    names = []
    for place, subject in enumerate(subjects):
        git("commit", "--quiet", "--allow-empty", "--message", subject)
        names.append(git("rev-parse", "HEAD"))
        if place == tag:
            git("tag", "v1")
    return folder, names
