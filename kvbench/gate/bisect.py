"""Which commit made a metric worse: bisection of a history, each commit judged by the gate against the good one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from kvbench.errors import told
from kvbench.gate.build import BUILD, LIBRARY, GateError, run_git
from kvbench.gate.processes import GATES, GateFixture
from kvbench.gate.session import run_gate
from kvbench.gate.thresholds import TIME, Thresholds
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.metrics import METRICS
from kvbench.text import clean

__all__ = [
    "Answer", "CommitGate", "CommitRange", "Judged", "NotWorseError", "Sought", "Suspects", "find_suspects", "seek",
]  # fmt: skip

_BROKEN = (Verdict.FAILED, Verdict.GONE)
_GOOD = (Verdict.SAME, Verdict.BETTER)
_GOLDEN = 0.618  # of the golden ratio: its multiples lie far from each other in the unit interval


class NotWorseError(GateError):
    """There is nothing to look for: the bad commit is not worse than the good one, or that is not decided."""

    is_decided = True


class Answer(StrEnum):
    """What a commit is, seen from the good and the bad one."""

    GOOD = "good"
    BAD = "bad"
    SKIPPED = "skipped"  # it cannot be built, or measured, or decided


class CommitRange:
    """The commits after ``good`` up to ``bad`` that change the library: no other one is measured.

    ``good`` and ``bad`` are revisions, then full hashes. Nothing is written to the repository.
    Raises GateError: there is no such revision, or ``bad`` does not descend from ``good``.
    """

    def __init__(self, checkout: Path, good: str, bad: str) -> None:
        self.checkout = checkout
        if run_git(checkout, "rev-parse", "--git-dir").returncode:
            raise GateError(f"{checkout} is in no git repository: run this in a checkout of kvcache")
        self.good, self.bad = self._commit(good), self._commit(bad)
        if self.good == self.bad:
            raise GateError(f"{good} and {bad} are the same commit: there is nothing between them")
        if self._is_ancestor(self.bad, self.good):
            raise GateError(f"{bad} comes before {good}: GOOD is the older one, and BAD descends from it")
        if not self._is_ancestor(self.good, self.bad):
            common = self._lines("merge-base", self.good, self.bad)
            what_to_do = f"try {common[0][:8]} as GOOD, their last common one" if common else "they have none in common"
            raise GateError(f"{bad} does not descend from {good}: {what_to_do}")
        if self.library(self.good) == self.library(self.bad):
            raise NotWorseError(f"{good} and {bad} have the same {LIBRARY}/ and {BUILD}: the cause lies elsewhere")

    def candidates(self, goods: Iterable[str], bad: str) -> list[str]:
        """Commits that ``bad`` has, itself among them, and none of ``goods``; those that halve them best are first.

        Of those that do it alike, parents are first: git orders them by their hashes, each time another way.
        An empty list where none of these changes the library.
        """
        best_first = {
            line.split()[0]: -int(line.rpartition("dist=")[2].rstrip(")"))
            for line in self._between("--bisect-all", goods, bad)
        }
        parents_first = self._between("--topo-order --reverse", goods, bad)
        return sorted(parents_first, key=best_first.__getitem__)

    def suspects(self, goods: Iterable[str], bad: str) -> list[str]:
        """The same, parents before children, and ``bad`` in any case."""
        return [each for each in self._between("--topo-order --reverse", goods, bad) if each != bad] + [bad]

    def _between(self, order: str, goods: Iterable[str], bad: str) -> list[str]:
        return self._lines("rev-list", *order.split(), bad, *(f"^{each}" for each in goods), "--", LIBRARY, BUILD)

    def library(self, commit: str) -> str:
        """What is equal for commits that have the same library, and for no others."""
        return "\n".join(self._lines("ls-tree", commit, "--", LIBRARY, BUILD))

    @property
    def steps(self) -> int:
        """How many commits have to be judged, besides the bad one, if none is skipped and all lie in one line."""
        return (len(self.candidates([self.good], self.bad)) - 1).bit_length()

    def describe(self, commit: str) -> str:
        """A commit in one line: its hash, date, author and subject."""
        line = self._lines("show", "--no-patch", "--no-show-signature", "--format=%as %an: %s", commit)
        return f"{commit[:8]} {clean(line[0])}"

    def _commit(self, revision: str) -> str:
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        done = run_git(self.checkout, *asked)
        if done.returncode:
            raise GateError(f"git knows no revision {revision!r} in {self.checkout}: fetch it first")
        return str(done.stdout.decode().strip())

    def _is_ancestor(self, older: str, newer: str) -> bool:
        return run_git(self.checkout, "merge-base", "--is-ancestor", older, newer).returncode == 0

    def _lines(self, *arguments: str) -> list[str]:
        done = run_git(self.checkout, *arguments)
        return done.stdout.decode(errors="replace").splitlines() if done.returncode == 0 else []


@dataclass(frozen=True)
class Suspects:
    """The commits among which the first bad one is, parents first, and the last good one that was judged."""

    commits: list[str]
    good: str


def find_suspects(commits: CommitRange, judge: Callable[[str], Answer]) -> Suspects:
    """Bisect, as ``git bisect`` does: one commit is left, or some that had to be skipped, and the first bad one.

    ``judge`` is asked once for each library that differs from the good and from the bad one.
    """
    known = {commits.library(commits.good): Answer.GOOD, commits.library(commits.bad): Answer.BAD}
    goods, bad, skipped = [commits.good], commits.bad, set[str]()
    while True:
        left = [each for each in commits.candidates(goods, bad) if each != bad]
        open_ = [each for each in left if each not in skipped]
        if not open_:
            return Suspects(commits.suspects(goods, bad), goods[-1])
        commit = _away_from_skipped(open_, len(left) - len(open_))
        library = commits.library(commit)
        if library not in known:
            known[library] = judge(commit)
        answer = known[library]
        if answer is Answer.BAD:
            bad = commit
        elif answer is Answer.GOOD:
            goods.append(commit)
        else:
            skipped.add(commit)


def _away_from_skipped(best_first: list[str], skipped: int) -> str:
    """The best one. After one that was skipped the next best; after more one further off, as neighbours are alike."""
    return best_first[int(max(skipped - 1, 0) * _GOLDEN % 1 * len(best_first))]


@dataclass(frozen=True)
class Judged:
    """What the gate said of a commit: the rows that are sought, or why there are none."""

    answer: Answer
    rows: list[Row] = field(default_factory=list)
    reason: str = ""


class Sought:
    """What is worse at the bad commit, and therefore looked for in the others: rows of some benchmarks, or of all.

    ``keyword`` chose what was measured there.
    """

    def __init__(self, rows: Iterable[Row], keyword: str = "") -> None:
        rows = list(rows)
        # Where all of them together are slower, single ones may be not decided.
        of_all = [row for row in rows if not _is_single(row) and row.metric == TIME]
        self._broken = {(row.benchmark, row.metric): row.verdict in _BROKEN for row in of_all or rows}
        self._are_all = bool(of_all)
        names = " or ".join(sorted({row.benchmark for row in rows}))
        self.keyword = names if all(map(_is_single, rows)) else keyword  # as pytest's -k has it

    def judge(self, rows: Iterable[Row]) -> Judged:
        """Bad is a commit with one of them, good one that has all decided and none of them."""
        all_rows = {(row.benchmark, row.metric): row for row in rows}
        found = [all_rows[place] for place in self._broken if place in all_rows]
        answers = [self._answer(place, broken, all_rows) for place, broken in self._broken.items()]
        if Answer.BAD in answers:
            return Judged(Answer.BAD, found)
        if Answer.SKIPPED in answers:
            return Judged(Answer.SKIPPED, found, reason="not decided, or nothing to compare")
        return Judged(Answer.GOOD, found)

    def _answer(self, place: tuple[str, str], broken: bool, rows: Mapping[tuple[str, str], Row]) -> Answer:
        row = rows.get(place)
        if row is not None:
            if row.verdict.fails and (row.verdict in _BROKEN) is broken:
                return Answer.BAD
            return Answer.GOOD if row.verdict in _GOOD else Answer.SKIPPED
        if broken:  # there is no row of a failure where nothing fails
            return Answer.GOOD if any(benchmark == place[0] for benchmark, _ in rows) else Answer.SKIPPED
        times = [each.verdict for each in rows.values() if each.metric == TIME]
        if self._are_all and times and Verdict.NOT_DECIDED not in times:  # nor of all where each is decided
            return Answer.BAD if 2 * times.count(Verdict.WORSE) > len(times) else Answer.GOOD
        return Answer.SKIPPED


def _is_single(row: Row) -> bool:
    """Whether a row is of one benchmark: the gate also judges all together, and compiled modules."""
    return row.benchmark.startswith("test_")


def seek(rows: Iterable[Row], metric: str, benchmark: str = "", keyword: str = "") -> Sought:
    """What is worse at the bad commit of one metric, in one benchmark or in all that ``keyword`` chose.

    A benchmark that fails or is gone counts as well. Raises NotWorseError: nothing is.
    """
    # Names may be given as tables show them.
    of_name = [row for row in rows if benchmark in ("", row.benchmark, row.benchmark.removeprefix("test_"))]
    chosen = [row for row in of_name if row.metric in (metric, "")]
    worse = [row for row in chosen if row.verdict.fails]
    if worse:
        return Sought(worse, keyword)
    if not chosen:
        there = ", ".join(sorted({row.metric for row in of_name if row.metric})) or "none"
        what = f"{benchmark} has" if benchmark else "the benchmarks have"
        raise GateError(f"{what} no {metric!r} at these commits; what is there: {there}")
    verdicts = ", ".join(sorted({row.verdict.value for row in chosen}))
    error = NotWorseError(f"BAD is not worse than GOOD in {metric} ({verdicts}): there is no commit to look for")
    if Verdict.NOT_DECIDED in {row.verdict for row in chosen}:
        error = NotWorseError(f"it was not decided whether BAD is worse than GOOD in {metric}: raise --budget")
        error.is_decided = False
    raise error


class CommitGate:
    """The gate for commits, each against the good one, by the benchmarks of the checkout: one metric is decided.

    What a commit says is meant counts all the same: the question is which commit it was. ``budget`` is seconds for each
    commit. Libraries are built in ``folder``; ``pass_env`` is as in ``GateFixture``.

    Raises GateError: there is no such metric, or the limits cannot be read.
    """

    def __init__(
        self, commits: CommitRange, metric: str, folder: Path, budget: float, pass_env: Iterable[str] = ()
    ) -> None:
        self.budget = budget
        self._commits, self._metric = commits, metric
        self._folder, self._pass_env = folder, pass_env
        self._limits = _read_limits(commits.checkout, metric)

    def compare(self, commit: str, keyword: str) -> list[Row]:
        """All rows of the benchmarks that pytest's ``keyword`` chooses.

        Raises GateError: the commit cannot be built or measured.
        """
        checkout, good = self._commits.checkout, self._commits.good
        with tempfile.TemporaryDirectory(dir=self._folder) as own:
            fixture = GateFixture(checkout, good, Path(own), keyword, self._pass_env, commit)
            with_times = self._metric == TIME
            return run_gate(fixture.measure_sides, self._limits, budget=self.budget, with_times=with_times).rows


def _read_limits(checkout: Path, metric: str) -> Thresholds:
    path = checkout / GATES / "thresholds.toml"
    try:
        limits = Thresholds.parse(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(f"{path}: cannot be read: {told(error)}") from None
    if metric != TIME and limits.limit_of(metric) is None:
        known = ", ".join(sorted({TIME, *METRICS, *limits.metrics}))
        raise GateError(f"there is no metric {metric!r}: choose one of {known}")
    return Thresholds(limits.time, limits.metrics)
