"""A pull request's comment as Markdown, of at most 20 rows."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kvbench.cli.comment_rows import Line, gate_lines, replay_lines
from kvbench.gate.instructions import INSTRUCTIONS
from kvbench.judge.row import ALL, Row
from kvbench.judge.verdict import Verdict
from kvbench.measure.machine import short_commit
from kvbench.report.pair import Gate
from kvbench.results.decode import LeftOut, Scalars, read_rows
from kvbench.results.replay import COMMIT, ReplayResult, ReplayResults
from kvbench.results.replay import MADE_BY as REPLAYED_BY
from kvbench.text import clean, in_markdown

__all__ = ["MARK", "MOST_ROWS", "comment_text", "read_replay"]

MARK = "<!-- kvbench comment -->"  # the first line: who posts a newer comment finds the older one by it
MOST_ROWS = 20
_MOST_COMMANDS = 5
_HEADINGS = ("verdict", "what", "metric", "before", "after", "change", "instructions")
_ALIGNED = "|--|--|--|--:|--:|--:|--:|"


def read_replay(path: Path, left_out: LeftOut) -> ReplayResults:
    """Read a file of ``kvbench replay --json``. Replays that do not fit are left out. Raises ResultsError."""
    return read_rows(path, ReplayResults, REPLAYED_BY, "replays", ReplayResult, left_out)


def comment_text(gate: Gate | None, replays: Sequence[ReplayResults], pages: str | None) -> str:
    """The comment. Each part is there where there is something to say."""
    gated = [] if gate is None else gate_lines(gate.rows)
    replayed = [line for each in replays for replay in each.replays for line in replay_lines(replay)]
    lines = sorted([*gated, *replayed], key=lambda line: line.rank)
    # Caches of one commit are compared in a replay: it says of what the commit changed only that content is wrong.
    judged = replayed if gate is None else [*gated, *(line for line in replayed if line.verdict is Verdict.FAILED)]
    parts = [
        f"{MARK}\n### {_headline(judged)}",
        "\n".join(_about(gate, gated)),
        f"Caches in replays: {_counted(replayed) or 'no difference'}." if replays else "",
        "\n".join(_table(lines[:MOST_ROWS])),
        _rest(lines[MOST_ROWS:]),
        f"[Pages with all of it]({pages})" if pages else "",
        "\n".join(["Measure it again:", "", *(f"    {clean(each)}" for each in _commands(gate, replays, lines))]),
        "\n".join(_machines(gate, replays)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(lines: Iterable[Line]) -> str:
    verdicts = [line.verdict for line in lines]
    if any(each.fails for each in verdicts):
        return "Worse"
    return "Not decided" if Verdict.NOT_DECIDED in verdicts else "Not worse"


def _about(gate: Gate | None, lines: Sequence[Line]) -> Iterator[str]:
    """What the gate compared, how many of it changed, and all instructions together."""
    if gate is not None:
        content = gate.content
        benchmarks = len({row.benchmark for row in gate.rows} - {ALL})
        head = _short(content.machine.get(COMMIT)) or "The working tree"
        measured = f"{benchmarks:,} benchmarks, {content.pairs} pairs of processes, {content.seconds:,.0f} s"
        yield f"{head} against {_short(content.base)}: {measured}."
        yield f"Found: {_counted(lines)}." if lines else "Nothing changed."
        yield from _instructions(gate.rows)
        yield from (in_markdown(each) for each in gate.content.notes or ())


def _short(commit: object) -> str:
    return in_markdown(short_commit(str(commit or "")))


def _counted(lines: Iterable[Line]) -> str:
    counts = Counter(line.verdict for line in sorted(lines, key=lambda line: line.rank))
    return ", ".join(f"{number} {verdict or 'changed'}" for verdict, number in counts.items())


def _instructions(rows: Iterable[Row]) -> Iterator[str]:
    pairs = [
        (row.base, row.head) for row in rows
        if row.metric == INSTRUCTIONS and row.base is not None and row.head is not None
    ]  # fmt: skip
    if pairs:
        base, head = (sum(side) for side in zip(*pairs, strict=True))
        share = f" ({100 * (head / base - 1):+.2f} %)" if base and head != base else ""
        counted = "1 benchmark" if len(pairs) == 1 else f"{len(pairs):,} benchmarks together"
        yield f"Instructions of {counted}: {base:,.0f} before, {head:,.0f} after{share}."


def _table(lines: Sequence[Line]) -> Iterator[str]:
    if lines:
        yield f"| {' | '.join(_HEADINGS)} |"
        yield _ALIGNED
    for line in lines:
        cells = (line.what, line.metric, line.before, line.after, line.change, line.instructions)
        shown = (in_markdown(each.replace("\n", " ")) for each in cells)
        yield f"| {_emphasised(line.verdict)} | {' | '.join(shown)} |"


def _emphasised(verdict: Verdict) -> str:
    return f"**{verdict}**" if verdict.fails else str(verdict)


def _rest(lines: Sequence[Line]) -> str:
    return f"{len(lines):,} more rows: {_counted(lines)}." if lines else ""


def _commands(gate: Gate | None, replays: Iterable[ReplayResults], lines: Sequence[Line]) -> Iterator[str]:
    """What measures the same again, and explains the worst benchmark whose instructions are counted."""
    if gate is not None:
        base = gate.content.base
        yield shlex.join(["kvbench", "gate", "--base", base])
        counted = {row.benchmark.removeprefix("test_") for row in gate.rows if row.metric == INSTRUCTIONS}
        worst = [line.what for line in lines if line.verdict.fails and line.what in counted]
        if worst:
            yield shlex.join(["kvbench", "explain", worst[0], base])
    repeated = dict.fromkeys(shlex.join(["kvbench", *each.command]) for each in replays)
    yield from list(repeated)[:_MOST_COMMANDS]


def _machines(gate: Gate | None, replays: Iterable[ReplayResults]) -> Iterator[str]:
    machines = [] if gate is None else [gate.content.machine]
    machines += [machine for each in replays for machine in each.machines.values()]
    yield from dict.fromkeys(_machine(each) for each in machines)


def _machine(machine: Scalars) -> str:
    parts = {"processor": "{}", "cores": "{} cores", "accelerator": "{}", "python_version": "Python {}",
             "torch_version": "torch {}"}  # fmt: skip
    shown = [form.format(machine[name]) for name, form in parts.items() if machine.get(name)]
    return in_markdown(f"Measured on {', '.join(shown)}.") if shown else ""
