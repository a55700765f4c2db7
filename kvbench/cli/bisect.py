"""``kvbench bisect``: which commit made a metric worse?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvbench.cli.console import make_table, say, show
from kvbench.cli.gate import EXIT_NOT_DECIDED, EXIT_WORSE, NotMeasuredError, check_packages
from kvbench.cli.options import option
from kvbench.errors import KvbenchError, told
from kvbench.files import temporary_folder

if TYPE_CHECKING:
    from kvbench.gate.bisect import Answer, CommitRange, Judged, Suspects
    from kvbench.judge.row import Row

__all__ = ["bisect"]

MOST_ROWS = 3  # of a commit in the table: a library that is slower everywhere has all of them
_METRIC = re.compile(r"(?:(?P<benchmark>.*[^\s:])\s*[\s:]\s*)?(?P<metric>\w+)")


def _parse_metric(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, str]:
    """The benchmark, empty for all of them, and the metric."""
    found = _METRIC.fullmatch(text.strip())
    if found is None:
        raise click.BadParameter(f"{text!r} has no metric at its end: give METRIC, or BENCHMARK:METRIC")
    return found["benchmark"] or "", found["metric"]


@click.command()
@click.pass_context
@click.argument("metric", callback=_parse_metric)
@click.argument("good")
@click.argument("bad")
@option("--keyword", "-k")
@option("--budget", help="Measure each commit for so long, at most.")
@option("--pass-env")
def bisect(
    context: click.Context, /, metric: tuple[str, str], good: str, bad: str, keyword: str | None, **settings: Any
) -> None:
    """Find the commit between GOOD and BAD that made METRIC worse.

    METRIC is one of the gate's ("time", or a counter) in all benchmarks that -k chooses, or in a single one, as in
    "operation[new:slab-pong-store]:time". The gate judges commits against GOOD, by this checkout's benchmarks. Nothing
    in the checkout is changed. What cannot be built, measured or decided is skipped.

    Exit code: 0 it is found, 1 BAD is not worse than GOOD, 2 it could not be measured, 3 it is one of several.
    """
    check_packages()
    from kvbench.gate.bisect import CommitRange, NotWorseError, find_suspects
    from kvbench.gate.processes import find_checkout

    if metric[0] and keyword:
        raise click.UsageError("give either BENCHMARK:METRIC or -k")
    try:
        commits = CommitRange(find_checkout(Path.cwd()), good, bad)
        with temporary_folder("kvcache-bisect") as folder:
            steps = _Steps(commits, metric, folder, **settings)
            steps.look_for(keyword or metric[0])
            suspects = find_suspects(commits, steps.judge)
    except NotWorseError as error:
        show(str(error))
        context.exit(EXIT_WORSE if error.is_decided else EXIT_NOT_DECIDED)
    except (KvbenchError, OSError) as error:
        raise NotMeasuredError(told(error)) from None
    steps.show(suspects)
    if len(suspects.commits) > 1:
        context.exit(EXIT_NOT_DECIDED)


class _Steps:
    """A bisection step by step: each commit is measured and told of."""

    def __init__(
        self, commits: CommitRange, metric: tuple[str, str], folder: Path, budget: float, pass_env: tuple[str, ...]
    ) -> None:
        from kvbench.gate.bisect import CommitGate

        self._commits = commits
        self._benchmark, self._metric = metric
        self._gate = CommitGate(commits, self._metric, folder, budget, pass_env)
        self._judged: dict[str, Judged] = {}

    def look_for(self, keyword: str) -> None:
        """Say how much there is to do, and see what is worse at the bad commit. Raises GateError: nothing is."""
        from kvbench.gate.bisect import seek

        commits, gate = self._commits, self._gate
        number = len(commits.candidates([commits.good], commits.bad))
        changing = "1 commit changes" if number == 1 else f"{number} commits change"
        say(
            f"{changing} the library. {commits.bad[:8]} is measured first, then {commits.steps} or so, each for "
            f"{gate.budget:.0f} s at most and the time to build it"
        )
        rows = gate.compare(commits.bad, keyword)
        self._sought = seek(rows, self._metric, self._benchmark, keyword)
        self._note(commits.bad, self._sought.judge(rows))

    def judge(self, commit: str) -> Answer:
        """Measure a commit; one that cannot be is skipped."""
        from kvbench.gate.bisect import Answer, Judged
        from kvbench.gate.build import GateError

        try:
            found = self._sought.judge(self._gate.compare(commit, self._sought.keyword))
        except GateError as error:
            found = Judged(Answer.SKIPPED, reason=str(error).partition("\n")[0])
        self._note(commit, found)
        return found.answer

    def _note(self, commit: str, found: Judged) -> None:
        self._judged[commit] = found
        say(f"{found.answer}: {self._commits.describe(commit)}")

    def show(self, suspects: Suspects) -> None:
        """Print the steps, and the commit or those that it may be."""
        table = make_table("", ["answer", "commit", "what was found"], [])
        for commit, found in self._judged.items():
            texts = [found.reason, *(f"{row.benchmark} {_change(row)}" for row in found.rows[:MOST_ROWS])]
            more = len(found.rows) - MOST_ROWS
            texts += [f"and {more} more"] if more > 0 else []
            table.add_row(found.answer, self._commits.describe(commit), "\n".join(filter(None, texts)))
        last = suspects.commits[-1]
        if len(suspects.commits) == 1:
            text = f"{self._metric} got worse with {self._commits.describe(last)}"
        else:
            lines = [f"  {self._commits.describe(each)}" for each in suspects.commits]
            between = f"{self._metric} got worse between {suspects.good[:8]} and {last[:8]}: with one of these commits"
            text = "\n".join([between, *lines])
        show(table, text)


def _change(row: Row) -> str:
    """What the gate says of a row, in short."""
    if row.base is None or row.head is None:
        return f"{row.verdict}: {row.reason}"
    if row.ratio is None or row.low is None or row.high is None:
        return f"{row.verdict}: {row.base:,.10g} -> {row.head:,.10g}"
    return f"{row.verdict}: {row.base:,.2f} -> {row.head:,.2f} us, {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})"
