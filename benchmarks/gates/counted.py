"""What callgrind runs for the gate: counts the instructions of both sides' operations, small replays and import.

Usage: valgrind ... python -P counted.py REQUEST.json RESULT.json (kvbench/gate/instructions.py starts it)

torch is imported once. Each side is then a fork, so that both begin with the same memory, byte for byte. A count still
depends a little on where things lie: Python's cache of methods has collisions. So what differs is counted in other
layouts too, and its smallest count is taken, since collisions only add.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMPORT = "test_import"
OPERATION, REPLAY = "test_operation[", "test_replay["
# Every fourth call that takes longer is seen; more calls cost everybody's time.
CALLS = 4
ROWS = 8
SIMULATIONS = 12
LAYOUTS = 4
SHIFTED_BY = 97  # objects that a layout has more than the one before
# What the suite imports: here, and not in each fork.
SHARED = ("pandas", "pyarrow.parquet", "pyarrow.compute", "xxhash", "msgspec", "psutil")

Count = Callable[[Callable[[], Any]], Any]
Run = Callable[[Count], None]  # calls what is counted by way of the function it is given


def main(request: str, result: str) -> None:
    asked = json.loads(Path(request).read_text())
    counting = Counting(Path(asked["folder"]), Path(asked["requests"]), asked["sides"])
    counting.count(count_import, [name for name in asked["names"] if name == IMPORT], asked["limit"])
    for name in SHARED:
        with suppress(ImportError):
            importlib.import_module(name)
    counting.count(_count_calls, [name for name in asked["names"] if name != IMPORT], asked["limit"])
    counts = {
        side: {name: total // CALLS if name.startswith(OPERATION) else total for name, total in counted.items()}
        for side, counted in counting.counts.items()
    }
    Path(result).write_text(json.dumps({"counts": counts, "faults": counting.faults}))


class Counting:
    """Counts of both sides, the smallest of all layouts; and the faults, by benchmark (of all of them: ``""``)."""

    def __init__(self, folder: Path, requests: Path, sides: dict[str, str]) -> None:
        import torch

        torch.set_num_threads(1)
        gc.disable()
        sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
        from kvbench.measure.instructions import Counter, read_totals

        # The library comes from a side and never from the checkout.
        sys.path.remove(str(ROOT))
        self.counts: dict[str, dict[str, int]] = {side: {} for side in sides}
        self.faults: dict[str, dict[str, str]] = {side: {} for side in sides}
        self._folder, self._sides, self._read = folder, sides, read_totals
        self._counter = Counter(requests)

    def count(self, run: Callable[..., Any], names: list[str], limit: float) -> None:
        """Count in the first layout; and what differs by more than a share of ``limit`` in all others."""
        for layout in range(LAYOUTS):
            if not names:
                return
            # One right after the other, and nothing in between: both begin with the same memory.
            forks = [self._fork(side, run, names, layout) for side in self._sides]
            for side, process in zip(self._sides, forks, strict=True):
                self._take_in(side, process)
            base, head = self.counts["base"], self.counts["head"]
            names = [name for name in names if name in base and name in head and _differ(base[name], head[name], limit)]

    def _fork(self, side: str, run: Callable[..., Any], names: list[str], layout: int) -> int:
        process = os.fork()
        if process:
            return process
        found: dict[str, str] = {}
        try:
            kept = _shift(layout)
            sys.path.insert(0, self._sides[side])
            found = run(self._counter, names)
            del kept
        except BaseException as error:
            found = {"": _short(error)}
        finally:
            self._faults_of(os.getpid()).write_text(json.dumps(found))
            os._exit(0)

    def _take_in(self, side: str, process: int) -> None:
        os.waitpid(process, 0)
        faults, counts = self._faults_of(process), self.counts[side]
        self.faults[side] |= json.loads(faults.read_text()) if faults.exists() else {"": "its process was killed"}
        for name, total in self._read(self._folder, process).items():
            counts[name] = min(total, counts.get(name, total))

    def _faults_of(self, process: int) -> Path:
        return self._folder / f"faults-{process}.json"


def _differ(base: float, head: float, limit: float) -> bool:
    return abs(head - base) > limit * base


def _shift(layout: int) -> list[Any]:
    """Take up memory and type versions, so that what comes later has others."""
    kept: list[Any] = []
    for number in range(layout * SHIFTED_BY):
        kept += [type(f"Shift{number}", (), {}), f"shift {number}", bytearray(64 + number)]
        hasattr(kept[-3], "looked_up")
    return kept


def _short(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def count_import(counter: Any, names: list[str]) -> dict[str, str]:
    """torch is there already: what it imports is not the library's."""
    faults: dict[str, str] = {}
    counter.translate(partial(_count_each, counter, {name: lambda count: count(_import) for name in names}, faults))
    return faults


def _import() -> None:
    importlib.import_module("kvcache")


def _count_calls(counter: Any, names: list[str]) -> dict[str, str]:
    from suite.bridge import put_suite_in_place

    missing = put_suite_in_place()
    if missing:
        return {"": missing}
    faults: dict[str, str] = {}
    # Several together, since callgrind translates all code anew each time; and not all, for their memory's sake.
    for _, group in groupby(names, key=_group_of):
        runs = {name: _caught(faults, name, partial(prepared, name)) for name in group}
        counter.translate(partial(_count_each, counter, runs, faults))
        runs.clear()
        gc.collect()
    return faults


def _group_of(name: str) -> str:
    return REPLAY if name.startswith(REPLAY) else name.partition("-")[0]


def _count_each(counter: Any, runs: dict[str, Run | None], faults: dict[str, str]) -> None:
    for name, run in runs.items():
        if run is not None:
            _caught(faults, name, partial(run, counter.count))
            counter.write_total(name)


def _caught(faults: dict[str, str], name: str, call: Callable[[], Any]) -> Any:
    """What a call returns, or None where it raises: then that is the benchmark's fault."""
    try:
        return call()
    except Exception as error:
        faults[name] = _short(error)
        return None


def prepared(name: str) -> Run:
    """A benchmark by its name, whose memory is allocated."""
    from kvcache import BACKENDS, GEOMETRIES

    cell = name.partition("[")[2].rstrip("]")
    backend = max((each for each in BACKENDS if cell.startswith(f"{each}-")), key=len, default=None)
    if backend is None:
        raise LookupError(f"this commit has no backend of the cell {cell!r}")
    what = cell.removeprefix(f"{backend}-")
    if name.startswith(REPLAY):
        run = _replay(backend, GEOMETRIES[what.removeprefix("synthetic-")])
    else:
        geometry, _, kind = what.rpartition("-")
        run = _operation(backend, GEOMETRIES[geometry], kind)
    run(lambda call: call())
    return run


def _operation(backend: str, geometry: Any, kind: str) -> Run:
    from kvbench.replay.operations import operation_config, prepare_operation
    from kvcache import make_backend

    operation = prepare_operation(kind, make_backend(backend, operation_config(geometry, ROWS)))

    def run(count: Count) -> None:
        for _ in range(CALLS):
            operation.prepare()
            count(operation.call)

    return run


def _replay(backend: str, geometry: Any) -> Run:
    from kvbench.replay.content import Contents
    from kvbench.replay.drive import FillerContent, Latents, run_step
    from kvcache import CacheConfig, make_backend

    geometry = replace(geometry, num_simulations=SIMULATIONS)
    config = CacheConfig(geometry)
    made = make_backend(backend, config)
    made.position_shift = Contents(geometry).position_shift("cpu", config.dtype)
    latents = Latents(geometry.embed_dim, "cpu")
    steps = [(step, latents.inputs(step)) for step in _steps(geometry)]

    def run(count: Count) -> None:
        content = FillerContent(made)
        for step, given in steps:
            run_step(made, step, given, content, lambda _, call, *arguments: count(partial(call, *arguments)))
        made.clear_all()

    return run


def _steps(geometry: Any) -> list[Any]:
    """The steps of one search, without a file between."""
    from kvbench.record.synthetic import SyntheticSearch
    from kvbench.trace.schema import COLUMNS
    from kvbench.trace.steps import read_steps

    events: list[dict[str, Any]] = []

    class Writer:
        def add(self, kind: str, scope: str, env: int, batch: int, search: int, simulation: int, **values: Any) -> int:
            place = {"env": env, "batch": batch, "search": search, "simulation": simulation}
            events.append({**dict.fromkeys(COLUMNS), "kind": kind, "scope": scope, **place, **values})
            return len(events) - 1

    list(SyntheticSearch(geometry, 1, seed=0).write(Writer()))  # type: ignore[arg-type]
    return list(read_steps(events))


if __name__ == "__main__":
    main(*sys.argv[1:])
