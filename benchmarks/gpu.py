"""All that is checked and measured on a card, in less than ten minutes: ``tox -e gpu`` or ``python benchmarks/gpu.py``.

Each part has a process and a time limit of its own: one that fails is a line, and the others go on. Without a card it
says so and what it would run. ``--device cpu --quick`` runs the parts on a CPU, to try them: its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from gpu_parts.caches import bandwidth, contents, steps
from gpu_parts.device import Setting, card
from gpu_parts.models import compiled, counts, searches, sliding
from gpu_parts.own_tests import tests

from kvbench.measure.machine import Machine
from kvbench.results.decode import write_json
from kvbench.results.gpu import GpuPart, GpuResults, GpuRow

__all__ = ["PARTS", "main"]

BUDGET = 570  # seconds of all parts


class Part(NamedTuple):
    """One part.

    Attributes:
        run: yields its rows; the first line of its docstring says what it does.
        seconds: that it may take.
    """

    run: Callable[[Setting], Iterable[GpuRow]]
    seconds: int

    @property
    def described(self) -> str:
        return (self.run.__doc__ or "").partition("\n")[0]


# In order of value: what comes last has what time is left.
PARTS = {
    "tests": Part(tests, 180),
    "contents": Part(contents, 120),
    "counts": Part(counts, 60),
    "steps": Part(steps, 60),
    "bandwidth": Part(bandwidth, 30),
    "searches": Part(searches, 90),
    "sliding": Part(sliding, 30),
    "compiled": Part(compiled, 150),
}
_TARGETS = ("bandwidth",)  # parts whose wishes are about speed: those fail no run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 1 where something does not hold or a part did not end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="few shapes")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="run this part; several times")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # of the process of one part
    given = parser.parse_args(arguments)
    setting, chosen = Setting(given.device, given.quick), given.only or list(PARTS)
    if given.rows is not None:
        return _run_here(setting, chosen[0], given.rows)
    if given.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device. On one this would run:")
        for name in chosen:
            print(f"  {name:<10} {PARTS[name].described}")
        return 0
    results = _run_all(setting, chosen)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.json, results)
        print(f"written: {given.json}")
    wrong = any(row.holds is False and row.part not in _TARGETS for row in results.rows)
    return int(wrong or any(part.status != "done" for part in results.parts))


def _run_here(setting: Setting, name: str, path: Path) -> int:
    """Run one part in this process; each row is a line of the file as soon as it is known."""
    torch.set_num_threads(1)
    with path.open("w") as file:
        for row in PARTS[name].run(setting):
            file.write(msgspec.json.encode(msgspec.structs.replace(row, part=name)).decode() + "\n")
            file.flush()
    return 0


def _run_all(setting: Setting, chosen: Sequence[str]) -> GpuResults:
    began, parts, rows = time.monotonic(), [], []
    for name in chosen:
        left = BUDGET - (time.monotonic() - began)
        part, found = _run_part(setting, name, min(PARTS[name].seconds, left))
        parts.append(part)
        rows += found
        for line in _shown(part, found):
            print(line, flush=True)
    return GpuResults(
        date=datetime.now(UTC).replace(microsecond=0).isoformat(),
        device="cuda" if setting.device == "cuda" else "cpu",
        quick=setting.quick,
        card=card() if setting.device == "cuda" else {},
        machine=Machine.describe(setting.device).to_dict(),
        parts=parts,
        rows=rows,
    )


def _run_part(setting: Setting, name: str, seconds: float) -> tuple[GpuPart, list[GpuRow]]:
    """One part in a process of its own, and the rows that it came to."""
    began = time.monotonic()
    if seconds <= 0:
        return GpuPart(name=name, status="timed out", seconds=0.0, reason="no time was left"), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        command = [sys.executable, __file__, "--device", setting.device, "--only", name, "--rows", str(path)]
        try:
            code, said = _wait_for([*command, *["--quick"] * setting.quick], seconds)
            last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
            status, reason = ("failed", last) if code else ("done", "")
        except subprocess.TimeoutExpired:
            status, reason = "timed out", f"after {seconds:.0f} s"
        part = GpuPart(name=name, status=status, seconds=round(time.monotonic() - began, 1), reason=reason)
        return part, list(_read_rows(path))


def _wait_for(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """A command's exit code and what it said of errors. One that is ended takes along what it has started."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, said


def _read_rows(path: Path) -> Iterator[GpuRow]:
    """The rows of a part; a line that was cut off is left out."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield msgspec.json.decode(line, type=GpuRow)
        except msgspec.DecodeError:
            return


def _shown(part: GpuPart, rows: Sequence[GpuRow]) -> Iterator[str]:
    yield f"{part.name}: {part.status}, {part.seconds:.0f} s{', ' if part.reason else ''}{part.reason}"
    for each in rows:
        value = each.reason if each.value is None else f"{each.value:.4g} {each.unit}"
        wanted = f" (wanted: {each.wanted})" if each.holds is False else ""
        yield f"  {'!' if each.holds is False else ' '} {each.name}: {value}{wanted}"


if __name__ == "__main__":
    sys.exit(main())
