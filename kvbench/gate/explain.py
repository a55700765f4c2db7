"""Which functions have more instructions than before: one benchmark on both sides, stack by stack."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kvbench.gate.instructions import run_counted
from kvbench.gate.processes import GATES, GateFixture
from kvbench.measure.callgrind_stacks import OPTIONS, read_stacks
from kvbench.measure.instructions import NotCountedError, find_dumps
from kvbench.measure.python_frames import build_frames

__all__ = ["Growth", "Stacks", "explain_benchmark", "grown_functions"]

PROGRAM = GATES / "explained.py"

Stacks = Mapping[tuple[str, ...], int]  # instructions of a stack's last frame itself


class Explained(msgspec.Struct):
    """What the program says: the process of each side, how many calls were counted, and what could not be."""

    processes: dict[str, int]
    calls: int
    faults: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Growth:
    """A function's instructions on both sides, without those of functions that it calls."""

    function: str
    base: int
    head: int

    @property
    def more(self) -> int:
        return self.head - self.base


def explain_benchmark(fixture: GateFixture, name: str) -> tuple[Stacks, Stacks]:
    """The stacks of base and head, of one call.

    Raises NotCountedError: one side lacks the benchmark, or none can be counted.
    """
    with tempfile.TemporaryDirectory(dir=fixture.sides["head"].parent) as text:
        folder = Path(text)
        frames = build_frames(folder, fixture.environment)
        asked = {"names": [name], "frames": str(frames), "checkout": str(fixture.checkout)}
        result = run_counted(fixture, folder, PROGRAM, asked, OPTIONS)
        explained = msgspec.json.decode(result.read_bytes(), type=Explained)
        base, head = (_stacks(folder, explained, side, name) for side in ("base", "head"))
        return base, head


def _stacks(folder: Path, explained: Explained, side: str, name: str) -> Stacks:
    for fault in explained.faults[side].values():
        raise NotCountedError(f"the {side} cannot run {name}: {fault}")
    process = explained.processes[side]
    dumps = find_dumps(folder, process)
    if name not in dumps:
        raise NotCountedError(f"callgrind wrote nothing of {name} of the {side}")
    functions = msgspec.json.decode((folder / f"functions-{process}.json").read_bytes(), type=list[str])
    stacks = read_stacks(dumps[name][0], functions)
    return {stack: count // explained.calls for stack, count in stacks.items()}


def grown_functions(base: Stacks, head: Stacks) -> list[Growth]:
    """The functions whose count changed: those that grew most are first."""
    of_base, of_head = (_by_function(stacks) for stacks in (base, head))
    found = [Growth(name, of_base[name], of_head[name]) for name in {**of_base, **of_head}]
    return sorted((each for each in found if each.more), key=lambda each: (-each.more, each.function))


def _by_function(stacks: Stacks) -> Counter[str]:
    functions: Counter[str] = Counter()
    for stack, count in stacks.items():
        functions[stack[-1] if stack else "harness"] += count
    return functions
