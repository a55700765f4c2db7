"""``kvbench gate``: is this working tree worse than a base commit?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import to_builtins

from kvbench.cli.console import say, show
from kvbench.cli.options import FILE, option
from kvbench.errors import KvbenchError, told
from kvbench.files import append_whole, temporary_folder
from kvbench.measure.machine import Machine
from kvbench.metrics import COMPILED
from kvbench.results.decode import write_json
from kvbench.results.gate import GateResults

if TYPE_CHECKING:
    from kvbench.gate.processes import GateFixture
    from kvbench.gate.session import GateReport
    from kvbench.gate.thresholds import Thresholds

__all__ = ["EXIT_NOT_DECIDED", "EXIT_WORSE", "NotMeasuredError", "check_packages", "gate"]

EXIT_WORSE, EXIT_NOT_MEASURED, EXIT_NOT_DECIDED = 1, 2, 3


class NotMeasuredError(click.ClickException):
    """Nothing can be said of the commit: no verdict, but no pass either."""

    exit_code = EXIT_NOT_MEASURED


@click.command()
@click.pass_context
@option("--base", metavar="REVISION", default="origin/main", help="Compare the working tree with this revision.")
@option("--pairs", type=click.IntRange(1, 10**6), default=20, help="Measure so many pairs of processes, at most.")
@option("--budget")
@option("--keyword", "-k")
@option("--no-times", is_flag=True, help="Compare deterministic metrics only.")
@option("--plain", is_flag=True, help="Let pytest-benchmark compare one process of each library instead.")
@option("--plain-fails", metavar="RULE", show_default="min:100%", help="Fail --plain by this rule of pytest-benchmark.")
@option(
    "--thresholds",
    type=FILE,
    default=Path("benchmarks/gates/thresholds.toml"),
    help="Read limits from this file of the checkout.",
)
@option("--pass-env")
@option("--summary", type=FILE, help="Append the verdicts to this file, as Markdown.")
@option("--json", "json_file", help="Write all verdicts to this file.")
def gate(
    context: click.Context,
    base: str,
    pairs: int,
    budget: float,
    keyword: str | None,
    no_times: bool,
    plain: bool,
    plain_fails: str | None,
    thresholds: Path,
    pass_env: tuple[str, ...],
    summary: Path | None,
    json_file: Path | None,
) -> None:
    """Measure the working tree against a commit: is anything worse?

    Both libraries are measured by this checkout's benchmarks/gates, in alternating processes. Deterministic metrics are
    compared exactly; times by a statistical test and a smallest effect, until they are decided or no pair is left.
    Large slowdowns need five pairs, small ones of noisy times more.

    Processes get the environment variables that they need: no tokens, no settings of pip or a proxy. --pass-env adds
    others.

    Exit code: 0 nothing got worse, 1 something did (or failed), 2 it could not be measured, 3 not decided within the
    pairs and seconds.
    """
    check_packages()
    if plain and (no_times or summary or json_file):
        raise click.UsageError("--plain has a table of its own: leave --no-times, --summary and --json out")
    from kvbench.gate.instructions import add_instructions
    from kvbench.gate.limits import judged_by
    from kvbench.gate.own_benchmarks import OwnBenchmarks
    from kvbench.gate.processes import GateFixture, find_checkout
    from kvbench.gate.session import run_gate
    from kvbench.gate.thresholds import read_thresholds

    try:
        if summary is not None:
            append_whole(summary, "")  # tried now, and not after minutes of measuring
        with temporary_folder("kvcache-gate") as folder:
            fixture = GateFixture(find_checkout(Path.cwd()), base, folder, keyword or "", pass_env)
            say(f"building and measuring {base} ({fixture.commit[:8]}) and the working tree ...")
            own = OwnBenchmarks(fixture, folder / "own")
            limits, loosened = judged_by(*read_thresholds(fixture, thresholds, say), own.directions)
            if plain:
                context.exit(_compare_plainly(fixture, limits, plain_fails))
            report = run_gate(
                fixture.measure_sides, limits, most_pairs=pairs, budget=budget, with_times=not no_times,
                listed=own.listed(not no_times, say), progress=_say_how_far,
            )  # fmt: skip
            report.rows[:0] = loosened
            add_instructions(fixture, report, limits, say)
    except (KvbenchError, OSError) as error:
        raise NotMeasuredError(told(error)) from None
    _show(f"the working tree against {base} ({fixture.commit[:8]})", fixture, report, summary, json_file)
    if report.fails or not report.is_decided:
        context.exit(EXIT_WORSE if report.fails else EXIT_NOT_DECIDED)


def check_packages() -> None:
    try:
        import pytest_benchmark  # noqa: F401 (what measures imports it, in processes of its own)

        import kvbench.cli.gate_table
        import kvbench.gate.session  # noqa: F401
    except ImportError as error:
        raise NotMeasuredError(f"the gate needs what 'pip install kvcache[bench]' brings: {error}") from None


def _compare_plainly(fixture: GateFixture, limits: Thresholds, fails: str | None) -> int:
    """The exit code of the plain form."""
    from kvbench.gate.plain import FAILS, compare_plainly

    are_meant = any(each.metric == COMPILED.name for each in limits.meant)
    is_worse = compare_plainly(fixture, click.echo, fails or FAILS, other_parts=are_meant)
    return EXIT_WORSE if is_worse else 0


def _show(title: str, fixture: GateFixture, report: GateReport, summary: Path | None, json_file: Path | None) -> None:
    """Print the verdicts, and write them where they are wanted."""
    from kvbench.cli.gate_table import gate_markdown, gate_table, gate_text

    machine = _machine(fixture)
    show(gate_table(title, report), f"{gate_text(report)}\n{machine}; {_compiled(fixture.compiled)}")
    content = GateResults(
        base=fixture.commit, machine=machine.to_dict(), compiled=fixture.compiled, pairs=report.pairs,
        seconds=report.seconds, notes=report.notes, rows=to_builtins(report.rows),
    )  # fmt: skip
    try:
        if summary is not None:
            append_whole(summary, gate_markdown(title, report))
        if json_file is not None:
            write_json(json_file, content)
    except OSError as error:  # code 1 would call the commit worse
        raise NotMeasuredError(told(error)) from None


def _machine(fixture: GateFixture) -> Machine:
    """The machine with the working tree's library, which is not the one that this process has."""
    compiled, wanted = fixture.compiled["head"], fixture.compiled["base"]
    return replace(
        Machine.describe(), threads=1, kvcache_version=fixture.versions.get("head", "of no known version"),
        kvcache_commit=fixture.head, kvcache_compiled=bool(compiled) and {*compiled} >= {*wanted},
    )  # fmt: skip


def _compiled(sides: Mapping[str, Sequence[str]]) -> str:
    """Which parts of the libraries are compiled: of both sides alike, or of each."""
    texts = {name: ", ".join(each.rpartition(".")[2] for each in found) or "nothing" for name, found in sides.items()}
    if texts["base"] == texts["head"]:
        return f"compiled on both sides: {texts['base']}"
    return f"compiled: {texts['base']} of the base, {texts['head']} of the head"


def _say_how_far(pairs: int, undecided: int, seconds: float) -> None:
    say(f"{pairs} pairs of processes, {seconds:.0f} s: {undecided} benchmarks not decided")
