"""The front page: is the last commit worse, what still stands, new against legacy, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvbench.history.commits import Commits
from kvbench.history.series import History
from kvbench.judge.change_points import Judgement
from kvbench.judge.segments import FEWEST_VALUES
from kvbench.judge.two_commits import compare_commits
from kvbench.report.against_legacy import lines_of, stale_panel
from kvbench.report.comparisons import Comparison, comparison_table
from kvbench.report.front import with_age
from kvbench.report.pair import Gate, Pair, gate_table
from kvbench.report.panels import Panel, Table
from kvbench.report.site import Site
from kvbench.report.standing import Regression, regressions_of, standing_lines, standing_table
from kvbench.report.training import Headline

__all__ = ["FRONT", "LAST_COMMIT", "FrontPage"]

FRONT = "index.html"
MOST_ROWS = 200  # of a table; its data has all
LAST_COMMIT = "Is the last measured commit worse?"
_TITLE = "kvbench report"


@dataclass(frozen=True)
class FrontPage:
    """What the front page is made of.

    Attributes:
        history, commits, judgement: of asv's results.
        pages: the address of each history, by ``history_name``.
        comparisons: with legacy.
        ends: full names of two commits to compare, the base first; empty where there are none.
        gate: a run of it.
        trainings: what training runs came to.
        not_measured: what, why, and according to what; ``absent`` of its rows are kinds of input that were not given.
        tables: panels that stand below.
    """

    history: History
    commits: Commits
    judgement: Judgement
    pages: Mapping[str, str]
    comparisons: Sequence[Comparison]
    ends: tuple[str, str]
    gate: Gate | None
    trainings: Sequence[Headline]
    not_measured: Table
    absent: int
    tables: Sequence[Panel]

    def write(self, site: Site, question: str) -> None:
        """Write it; ``question`` is what the two commits answer."""
        pair = self._pair()
        standing, mended = regressions_of(self.judgement.change_points)
        stale = stale_panel(self.comparisons)
        panels = [*self._panels(pair, standing, mended), *self.tables]
        site.page(
            FRONT,
            "front.html",
            _TITLE,
            pair=pair,
            question=question,
            fewest=FEWEST_VALUES,
            **self._about(pair),
            standing=standing_lines(standing, self.pages) if self.history.series else None,
            mended=len(mended),
            against=lines_of(self.comparisons),
            stale=None if stale is None else site.panel(stale),
            gaps=self._gaps,
            trainings=self.trainings,
            details=[site.panel(panel) for panel in panels],
        )

    def _pair(self) -> Pair | None:
        base, head = self.ends
        if base:
            changes = [self.history.environment_change(machine, base, head) for machine in self.history.commits]
            environment = "; ".join(dict.fromkeys(filter(None, changes)))
            compared = compare_commits(self.history, self.judgement, base, head)
            return Pair(base, head, compared, self.gate, environment)
        return None if self.gate is None else Pair(self.gate.base, self.gate.head, (), self.gate)

    def _about(self, pair: Pair | None) -> dict[str, object]:
        """Ages and subjects of both commits, and what changed between them."""
        names = {"base": pair.base, "head": pair.head} if pair else {"base": "", "head": ""}
        about = {f"{side}_about": self._described(name) for side, name in names.items()}
        return {**about, "pair_lines": pair.lines(self.pages) if pair else []}

    def _described(self, name: str) -> str:
        known = self.commits.find(name)
        age = with_age(name, self.commits).partition(", ")[2]
        return ": ".join(part for part in (f"({age})" if age else "", known.subject if known else "") if part)

    @property
    def _gaps(self) -> list[tuple[str, str]]:
        """What was not measured by its reason; kinds of input that were not given are one line."""
        rows = [[str(cell) for cell in row] for row in self.not_measured.rows]
        by_reason: dict[str, list[str]] = {}
        for what, why, _ in rows[: len(rows) - self.absent]:
            by_reason.setdefault(why, []).append(what)
        gaps = [
            (f"{what[0]} and {len(what) - 1} more" if len(what) > 1 else what[0], why)
            for why, what in by_reason.items()
        ]
        absent = ", ".join(what for what, *_ in rows[len(rows) - self.absent :])
        return [*gaps, ("Not given", absent)] if absent else gaps

    def _panels(self, pair: Pair | None, standing: Sequence[Regression], mended: Sequence[Regression]) -> list[Panel]:
        """Tables of what is above, those that have a row."""
        found = []
        if pair is not None and pair.compared:
            found.append(_cut("pair", f"{pair.head[:8]} against {pair.base[:8]}: every series", pair.table))
        if self.gate is not None:
            found.append(_cut("gate", f"The gate: {self.gate.name}", gate_table(self.gate)))
        for name, title, regressions in (
            ("standing", "Regressions that still stand", standing),
            ("mended", "Mended regressions", mended),
        ):
            if regressions:
                found.append(_cut(name, title, standing_table(regressions, self.pages)))
        if self.comparisons:
            found.append(Panel("verdicts", "New against legacy: every comparison", comparison_table(self.comparisons)))
        return found


def _cut(name: str, title: str, table: Table) -> Panel:
    """A panel of the table's first rows, whose data has all."""
    note = f"The first {MOST_ROWS:,} of {len(table.rows):,}; the data has all." if len(table.rows) > MOST_ROWS else ""
    return Panel(name, title, Table(table.headings, table.rows[:MOST_ROWS]), note, data=table)
