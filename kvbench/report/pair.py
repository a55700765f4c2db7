"""Is the last commit worse? Two commits compared on the front page: by the history, and by the gate if it was run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvbench.judge.row import Row
from kvbench.judge.two_commits import Compared
from kvbench.judge.verdict import Verdict
from kvbench.measure.machine import short_commit
from kvbench.report.findings import Finding, grouped, how_much, of_series
from kvbench.report.panels import Cell, Table
from kvbench.report.text import clean, number, words
from kvbench.results.decode import LeftOut, convert, read_rows
from kvbench.results.gate import GateResults
from kvbench.results.replay import COMMIT

__all__ = ["Gate", "Pair", "Tally", "gate_table", "read_gate"]

MADE_BY = "'kvbench gate --json'"
_TIME = "time"  # the gate's name of it
_ORDER = (Verdict.FAILED, Verdict.GONE, Verdict.WORSE, Verdict.BETTER)  # others come after them
_QUIET = (Verdict.SAME, Verdict.NOT_DECIDED)
_BAD = _ORDER[:3]
_HEADINGS = ("verdict", "change, %", "metric", "parameters", "base", "head", "unit", "machine")


@dataclass(frozen=True)
class Tally:
    """How many of one kind of metric have which verdict: ``what`` it is, and the numbers as columns.

    ``commits`` are those of which it is, where they are others than the page's two.
    """

    what: str
    worse: int
    better: int
    same: int
    undecided: int
    commits: str = ""

    @classmethod
    def of(cls, what: str, verdicts: Iterable[Verdict], commits: str = "") -> Tally:
        count = Counter(verdicts)
        good = count[Verdict.SAME] + count[Verdict.MEANT] + count[Verdict.NEW]
        bad = sum(count[each] for each in _BAD)
        rest = count.total() - bad - good - count[Verdict.BETTER]
        return cls(what, bad, count[Verdict.BETTER], good, rest, commits)


@dataclass(frozen=True)
class Gate:
    """A run of ``kvbench gate``: what it compared, and its rows."""

    name: str
    content: GateResults
    rows: Sequence[Row]

    @property
    def base(self) -> str:
        return self.content.base

    @property
    def head(self) -> str:
        return str(self.content.machine.get(COMMIT) or "a working tree")

    def is_of(self, base: str, head: str) -> bool:
        """Whether it compared these two commits."""
        return bool(base and head) and (self.base, self.head) == (base, head)

    def tallies(self, commits: str) -> Iterator[Tally]:
        """Of its counters and its times, those that it has."""
        for what, is_time in (("counters", False), ("times", True)):
            verdicts = [row.verdict for row in self.rows if (row.metric == _TIME) is is_time]
            if verdicts:
                yield Tally.of(f"{what}, gate", verdicts, commits)

    @property
    def lines(self) -> list[Finding]:
        """What got worse or better, the worst first."""
        told = [row for row in self.rows if row.verdict in _ORDER]
        told.sort(key=lambda row: (_ORDER.index(row.verdict), -_size(row)))
        return [
            Finding(
                row.verdict,
                _gate_much(row),
                words(row.metric) or "whole benchmark",
                row.benchmark,
                "",
                about=row.reason,
            )
            for row in told
        ]


def _size(row: Row) -> float:
    if row.ratio is not None:
        return abs(row.ratio - 1)
    return abs(row.head / row.base - 1) if row.head is not None and row.base else 0.0


def _gate_much(row: Row) -> str:
    if row.ratio is not None:
        return f"{100 * (row.ratio - 1):+.0f} %"
    if row.base is None or row.head is None:
        return str(row.verdict)
    return f"{number(row.base)} to {number(row.head)}"


def read_gate(path: Path, left_out: LeftOut) -> Gate:
    """Read a gate's file; rows that do not fit are left out. Raises ResultsError, as ``read_rows`` does."""
    content = read_rows(path, GateResults, MADE_BY, "rows", Row, left_out)
    return Gate(clean(path.name), content, convert(path, content.rows, list[Row], MADE_BY))


def gate_table(gate: Gate) -> Table:
    """Every row of a gate, what got worse first."""
    rows = sorted(gate.rows, key=lambda row: (row.verdict not in _BAD, row.verdict is Verdict.SAME))
    headings = ("verdict", "benchmark", "metric", "base", "head", "ratio", "from", "to", "reason")
    return Table(
        headings,
        [
            (row.verdict, row.benchmark, row.metric, row.base, row.head, row.ratio, row.low, row.high, row.reason)
            for row in rows
        ],
    )


@dataclass(frozen=True)
class Pair:
    """Two commits, and all that is known of them together.

    Attributes:
        base, head: full names; empty where the history has not both.
        compared: every series of the history that was measured at both.
        gate: that was given; it may have compared others.
        environment: what changed in it from one to the other; empty where nothing did.
    """

    base: str
    head: str
    compared: Sequence[Compared]
    gate: Gate | None = None
    environment: str = ""

    @property
    def gate_is_of_it(self) -> bool:
        return self.gate is not None and self.gate.is_of(self.base, self.head)

    @property
    def tallies(self) -> list[Tally]:
        """Of counters and times, by the history and by the gate."""
        return [*self._by_history, *self._by_gate]

    @property
    def _by_history(self) -> list[Tally]:
        kinds = {"counters": True, self.measured: False}
        verdicts = {
            what: [each.verdict for each in self.compared if each.series.is_exact is is_exact]
            for what, is_exact in kinds.items()
        }
        return [Tally.of(what, found) for what, found in verdicts.items() if found]

    @property
    def measured(self) -> str:
        """What a reader calls that which is not exact: another project measures memory as well."""
        others = [each.series for each in self.compared if not each.series.is_exact]
        return "times" if all(each.is_time or each.is_of_a_cache for each in others) else "measured values"

    @property
    def _by_gate(self) -> list[Tally]:
        if self.gate is None:
            return []
        commits = f"{short_commit(self.gate.base)}..{short_commit(self.gate.head)}"
        return list(self.gate.tallies("" if self.gate_is_of_it else commits))

    @property
    def _asked_gate(self) -> bool:
        """Whether the gate's answer is part of this one."""
        return self.gate is not None and (self.gate_is_of_it or not self.compared)

    @property
    def _own(self) -> list[Tally]:
        """Tallies that the answer is read from."""
        return [*self._by_history, *(self._by_gate if self._asked_gate else ())]

    @property
    def is_open(self) -> bool:
        """Whether times are not decided, and no gate was asked."""
        return not self.gate_is_of_it and any(each.verdict is Verdict.NOT_DECIDED for each in self.compared)

    @property
    def word(self) -> str:
        """The answer."""
        worse, better = (sum(getattr(each, name) for each in self._own) for name in ("worse", "better"))
        if worse:
            return f"worse in {worse:,}"
        if self.is_open:
            counted = any(each.series.is_exact for each in self.compared)
            return f"{'counters not worse, ' if counted else ''}{self.measured} not decided"
        return f"better in {better:,}" if better else "not worse"

    @property
    def tone(self) -> str:
        """How a page marks it."""
        if any(each.worse for each in self._own):
            return Verdict.WORSE
        return Verdict.MIXED if self.is_open else Verdict.BETTER

    @property
    def command(self) -> str:
        """What decides times; empty where they are decided, and where no cache was measured that the gate knows."""
        is_ours = self.is_open and any(each.series.param("backend") for each in self.compared)
        return f"git checkout {self.head[:8]} && kvbench gate --base {self.base[:8]}" if is_ours else ""

    def lines(self, pages: Mapping[str, str]) -> list[Finding]:
        """What got worse, and then better, the largest first."""

        def line(each: Compared) -> Finding:
            failed = each.verdict is Verdict.FAILED
            much = "failed" if failed else how_much(each.percent, each.base, each.head, each.series)
            return of_series(each.series, each.verdict, much, pages)

        own = grouped(self._told, lambda each: each.series, line)
        return [*own, *(self.gate.lines if self.gate is not None and self._asked_gate else ())]

    @property
    def _told(self) -> list[Compared]:
        places = {verdict: place for place, verdict in enumerate(_ORDER)}
        told = [each for each in self.compared if each.verdict not in _QUIET]
        return sorted(told, key=lambda each: (places.get(each.verdict, len(places)), -each.size))

    @property
    def table(self) -> Table:
        """Every series, those that changed first."""
        rest = [each for each in self.compared if each.verdict in _QUIET]
        rows: list[list[Cell]] = [
            [
                each.verdict, each.percent, each.series.metric, each.series.params, each.base, each.head,
                each.series.unit, each.series.machine,
            ]
            for each in [*self._told, *rest]
        ]  # fmt: skip
        return Table(_HEADINGS, rows)
