"""Why benchmarks were skipped: what a commit, or the machine, has no value of at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import pandas as pd

__all__ = ["Skipped", "skip_reasons"]

Pair = tuple[str, str]  # a parameter's name and value
_KINDS = {"device": "no such device: ", "backend": "no such backend in that commit: "}
_NOT_SAID = "the files do not say why"
_NOTHING = "nothing was measured at that commit"


class Skipped(NamedTuple):
    """How many values were skipped for one reason, and at how many commits: "7 of 16 commits"."""

    number: int
    why: str
    commits: str


def skip_reasons(frame: pd.DataFrame, chosen: pd.DataFrame) -> list[Skipped]:
    """Each reason, the most frequent first.

    asv's files say that a value was skipped, and not why. The reason is a parameter's value that nothing has at that
    commit: a device that the machine lacks, or a backend that the commit lacks.

    Args:
        frame: of ``load_results``, whole: what was measured tells what was there.
        chosen: the rows whose reasons are wanted.
    """
    skipped = chosen[chosen["state"] == "skipped"].groupby(["machine", "commit", "params"]).size()
    cells = dict(frame.drop_duplicates("params")[["params", "cell"]].itertuples(index=False))
    measured: dict[Pair, set[Pair]] = defaultdict(set)
    for row in frame[frame["state"] != "skipped"].drop_duplicates(["machine", "commit", "params"]).itertuples():
        measured[row.machine, row.commit].update(cells[row.params])
    values: Counter[Pair] = Counter()
    commits: dict[Pair, set[str]] = defaultdict(set)
    for (machine, commit, params), number in skipped.items():
        reason = _reason(cells[params], measured[machine, commit])
        values[reason] += number
        commits[reason].add(commit)
    # One line for backends that came with the same commit.
    together: dict[tuple[str, frozenset[str]], list[Pair]] = defaultdict(list)
    for reason, _ in values.most_common():
        together[reason[0], frozenset(commits[reason])].append(reason)
    return [
        Skipped(
            sum(values[each] for each in reasons),
            kind + ", ".join(value for _, value in reasons),
            f"{len(names)} of {chosen['commit'].nunique()} commits",
        )
        for (kind, names), reasons in together.items()
    ]


def _reason(cell: tuple[Pair, ...], measured: set[Pair]) -> Pair:
    """What is said of it, and of what: a missing device explains more than a backend, and that one more than others."""
    if not measured:
        return _NOTHING, ""
    lacking = {name: value for name, value in cell if (name, value) not in measured}
    for name in (*_KINDS, *lacking):
        if name in lacking:
            return _KINDS.get(name, f"nothing has {name}="), lacking[name]
    return _NOT_SAID, ""
