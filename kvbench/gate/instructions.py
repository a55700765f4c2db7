"""Instructions of both sides' operations, small replays and import: one process counts them all, however busy it is."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from kvbench.gate.build import run_merged
from kvbench.gate.processes import GATES, GateFixture
from kvbench.gate.rows import compare_metrics, gone
from kvbench.gate.session import GateReport
from kvbench.gate.thresholds import Limit, Thresholds
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.measure.instructions import NotCountedError, build_requests, require_tools, valgrind_command

__all__ = [
    "IMPORT",
    "INSTRUCTIONS",
    "Counted",
    "add_instructions",
    "count_instructions",
    "judge_instructions",
    "names_to_count",
    "run_counted",
]

INSTRUCTIONS = "instructions"
IMPORT = "test_import"  # benchmarks/gates/test_gate_import.py times it
PROGRAM = GATES / "counted.py"
LONGEST = 900  # seconds
_LAST = 300  # characters of what a failed process said


class ProgramError(NotCountedError):
    """A program of this checkout that counts raised an error: its own fault, and not the machine's."""


class Counted(msgspec.Struct):
    """What was counted, by side and benchmark; and what could not be: of a benchmark, or (``""``) of a whole side."""

    counts: dict[str, dict[str, float]]
    faults: dict[str, dict[str, str]]


def add_instructions(
    fixture: GateFixture, report: GateReport, thresholds: Thresholds, say: Callable[[str], None]
) -> None:
    """Count the instructions of what the run measured, and add their rows; or a note that says why there are none.

    Where the base has the program that counts, the change may not drop it.
    """
    names = names_to_count(report.rows, fixture.keyword)
    if not (fixture.checkout / PROGRAM).exists() and fixture.file_of_base(PROGRAM) is not None:
        report.rows.append(gone(PROGRAM.as_posix(), INSTRUCTIONS, thresholds, "the base has this file"))
        names = []
    try:
        if names:
            say(f"counting the instructions of {len(names)} benchmarks")
            counted = count_instructions(fixture, names, _limit(thresholds).relative)
            report.rows += judge_instructions(counted, thresholds)
    except NotCountedError as error:
        report.notes.append(f"no instructions were counted: {error}")


def names_to_count(rows: Iterable[Row], keyword: str) -> list[str]:
    """The benchmarks of a run whose instructions are counted."""
    names = {row.benchmark for row in rows if row.verdict not in (Verdict.NEW, Verdict.GONE, Verdict.FAILED)}
    found = {name for name in names if name.startswith("test_operation[") or name.endswith("-synthetic-pong]")}
    found = {name for name in found if "legacy" not in name}
    return sorted(found) + [IMPORT] * (IMPORT in names or not keyword)


def count_instructions(fixture: GateFixture, names: list[str], limit: float) -> Counted:
    """Count in one process, which forks for each side.

    ``limit`` is the share that decides: what differs by more is counted again, in other layouts of memory.
    Raises NotCountedError: no valgrind, no compiler, or it failed.
    """
    with tempfile.TemporaryDirectory(dir=fixture.sides["head"].parent) as text:
        try:
            result = run_counted(fixture, Path(text), PROGRAM, {"names": names, "limit": limit})
        except ProgramError as error:
            sides = ("base", "head")
            return Counted({side: {} for side in sides}, {side: {"": str(error)} for side in sides})
        return msgspec.json.decode(result.read_bytes(), type=Counted)


def run_counted(
    fixture: GateFixture, folder: Path, program: Path, asked: Mapping[str, Any], options: Iterable[str] = ()
) -> Path:
    """Run a program of the gates under callgrind, which writes to ``folder``; the file with its result.

    Raises NotCountedError: no valgrind, no compiler, or it failed; ProgramError: it ran, and the program failed.
    """
    if not (fixture.checkout / program).exists():
        raise NotCountedError(f"{fixture.checkout} has no {program}")
    require_tools()
    request, result = folder / "request.json", folder / "result.json"
    requests = build_requests(folder, fixture.environment)
    sides = {side: str(path) for side, path in fixture.sides.items()}
    every = {"folder": str(folder), "requests": str(requests), "sides": sides}
    request.write_bytes(msgspec.json.encode(every | dict(asked)))
    command = [sys.executable, "-P", str(fixture.checkout / program), str(request), str(result)]
    benchmarks = str(fixture.checkout / program.parents[1])
    own = {"PYTHONPATH": benchmarks, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    try:
        done = run_merged(
            valgrind_command(folder, command, options), fixture.checkout, env=fixture.environment | own, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        raise NotCountedError(f"valgrind did not end within {LONGEST} s") from None
    if done.returncode or not result.exists():
        said = done.stdout.strip()
        if "Traceback" in said:
            raise ProgramError(f"{program}: {said.splitlines()[-1][:_LAST]}")
        raise NotCountedError(f"valgrind failed (exit code {done.returncode}): {said[-_LAST:]}")
    return result


def judge_instructions(counted: Counted, thresholds: Thresholds) -> list[Row]:
    """The rows of what was counted. What could not be counted of the head has failed, whatever the base's count is.

    Raises NotCountedError: the base could not be counted, and the head could.
    """
    faults, counts = counted.faults, counted.counts
    if "" in faults["base"] and "" not in faults["head"]:
        raise NotCountedError(f"the base could not be counted: {faults['base']['']}")
    rows = []
    if "" in faults["head"]:
        rows.append(
            Row("", INSTRUCTIONS, Verdict.FAILED, reason=f"the head could not be counted: {faults['head']['']}")
        )
    for name in sorted({*counts["base"], *counts["head"], *faults["head"]} - {""}):
        base, head = (counts[side].get(name) if name not in faults[side] else None for side in ("base", "head"))
        if head is None:
            reason = faults["head"].get(name, "")
            rows += [Row(name, INSTRUCTIONS, Verdict.FAILED, base, reason=reason)] * ("" not in faults["head"])
        elif base is None:
            rows.append(Row(name, INSTRUCTIONS, Verdict.NEW, head=head, reason=faults["base"].get(name, "")))
        else:
            rows.append(_compare(name, base, head, thresholds))
    return rows


def _compare(name: str, base: float, head: float, thresholds: Thresholds) -> Row:
    """Where things lie in memory moves a count a little, either way: less than the limit is no change."""
    row = compare_metrics(name, {INSTRUCTIONS: base}, {INSTRUCTIONS: head}, thresholds)[0]
    is_within = abs(head - base) <= _limit(thresholds).room(base)
    return replace(row, verdict=Verdict.SAME, reason="") if is_within else row


def _limit(thresholds: Thresholds) -> Limit:
    limit = thresholds.limit_of(INSTRUCTIONS)
    assert limit is not None  # kvbench/metrics.py has it
    return limit
