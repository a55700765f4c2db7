"""What callgrind runs for ``kvbench explain``: counts one benchmark on both sides, function by function.

Usage: valgrind ... python -P explained.py REQUEST.json RESULT.json (kvbench/gate/explain.py starts it)
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from gates.counted import CALLS, IMPORT, OPERATION, Counting, count_import, prepared


def main(request: str, result: str) -> None:
    asked = json.loads(Path(request).read_text())
    explaining = Explaining(Path(asked["folder"]), Path(asked["requests"]), asked["sides"])
    explaining.frames, explaining.roots = asked["frames"], [*asked["sides"].values(), asked["checkout"]]
    # Each is counted once, however much they differ.
    explaining.count(explaining.run, asked["names"], limit=float("inf"))
    calls = CALLS if asked["names"][0].startswith(OPERATION) else 1
    said = {"processes": explaining.processes, "calls": calls, "faults": explaining.faults}
    Path(result).write_text(json.dumps(said))


class Explaining(Counting):
    """Counts a benchmark of which each Python function has a name."""

    frames: str
    roots: list[str]

    def __init__(self, folder: Path, requests: Path, sides: dict[str, str]) -> None:
        super().__init__(folder, requests, sides)
        self.processes: dict[str, int] = {}

    def run(self, counter: Any, names: list[str]) -> dict[str, str]:
        from kvbench.measure.python_frames import PythonFrames

        frames = PythonFrames(Path(self.frames))
        (name,) = names
        if name == IMPORT:
            faults = count_import(counter, names)
        else:
            from suite.bridge import put_suite_in_place

            missing = put_suite_in_place()
            if missing:
                return {"": missing}
            faults = {}
            counter.translate(partial(prepared(name), counter.count))
            counter.write_total(name)
        named = Path(self._folder) / f"functions-{os.getpid()}.json"
        named.write_text(json.dumps(frames.names(self.roots)))
        return faults

    def _take_in(self, side: str, process: int) -> None:
        super()._take_in(side, process)
        self.processes[side] = process


if __name__ == "__main__":
    main(*sys.argv[1:])
