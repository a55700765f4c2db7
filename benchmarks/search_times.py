"""How long whole searches take, divided into their parts, before and after: ``python benchmarks/search_times.py``.

The library of a commit (``--base``) and of the working tree are compiled alike. Each has a process of its own. They
search in turns, the same searches with the same seed. Times are of the processor, with one thread: on an idle machine
they are the times of a clock, and others' work disturbs them less. Figures are medians; ``base / head`` are medians of
the ratios of pairs of searches, with their quartiles, over several pairs of processes.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from command_line import Help, positive

ROOT = Path(__file__).resolve().parents[1]
_SPLIT = ROOT / "kvbench" / "measure" / "search_split.py"
_PARTS = ("forward", "cache", "tree", "rest")


def serve(geometry: str, seed: int) -> None:
    """Search once for each line of the input, and write the parts' seconds and the visits; until the input ends."""
    import torch

    from kvcache import GEOMETRIES  # of the side that this process measures
    from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig

    playing: Any = importlib.import_module("kvcache.world_model.play")
    assert Path(playing.__file__).is_relative_to(Path.cwd().resolve()), "another library is in the way"
    # Timed by the working tree's clock on both sides: a base may have none.
    spec = importlib.util.spec_from_file_location("search_split", _SPLIT)
    assert spec is not None
    assert spec.loader is not None
    split = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(split)

    torch.set_num_threads(1)
    shape, clock = GEOMETRIES[geometry], split.SplitClock(time.process_time)
    model = WorldModel(WorldModelConfig(shape, seed=seed, use_new_cache_manager=True))
    search = split.split_search(model, SearchConfig(num_simulations=shape.num_simulations), clock)
    playing.Search = lambda *_: search  # an older ``play`` makes its own
    searches = playing.play(model, 10**9, seed)
    for _ in sys.stdin:
        clock.start()
        found = clock("rest", next, searches)
        print(json.dumps({"seconds": clock.seconds, "visits": found.result.visit_counts.tolist()}), flush=True)


class Side:
    """A process that searches with one side's library."""

    def __init__(self, folder: Path, geometry: str, seed: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve", geometry, "--seed", str(seed)]
        path = os.pathsep.join([str(folder), str(Path(__file__).resolve().parent)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def search(self) -> dict[str, Any]:
        """One search."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended, exit code {self._process.wait()}: see above")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def measure(sides: Mapping[str, Path], geometry: str, searches: int, processes: int) -> dict[str, list[dict[str, Any]]]:
    """Searches of each side, pair by pair; the first of each process is left out."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for seed in range(processes):
        with ExitStack() as stack:
            running = {name: stack.enter_context(Side(folder, geometry, seed)) for name, folder in sides.items()}
            for number in range(searches + 1):
                order = list(running) if number % 2 else list(reversed(running))
                pair = {name: running[name].search() for name in order}
                for name in running if number else ():
                    found[name].append(pair[name])
    return found


def lines(geometry: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Rows of the table: each side's parts, and how they compare."""
    seconds = {name: np.array([[each["seconds"][part] for part in _PARTS] for each in found[name]]) for name in found}
    rows = []
    for name, parts in seconds.items():
        numbers = [float(np.median(parts.sum(1))), *np.median(parts, 0)]
        rows.append(f"| {geometry} | {name} | {' | '.join(f'{1e3 * number:.2f}' for number in numbers)} | |")
    if len(seconds) > 1:
        base, head = (parts.sum(1) for parts in seconds.values())
        low, middle, high = np.quantile(base / head, [0.25, 0.5, 0.75])
        visits = zip(*([each["visits"] for each in side] for side in found.values()), strict=True)
        same = sum(one == other for one, other in visits)
        rows.append(f"| | base / head | {middle:.2f} ({low:.2f} to {high:.2f}) | | | | | {same} of {len(base)} |")
    return rows


def prepare(folder: Path, base: str | None) -> dict[str, Path]:
    """The libraries, compiled, each in a folder of its own."""
    from kvbench.gate.build import build_sides, copy_head, extract_base

    sides = {name: folder / name for name in (["base", "head"] if base else ["head"])}
    for side in sides.values():
        side.mkdir()
    if base:
        extract_base(ROOT, base, sides["base"])
    copy_head(ROOT, sides["head"])
    build_sides({"base": sides["head"]} | sides, dict(os.environ))
    return sides


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--base", help="compare with this commit's library")
    parser.add_argument("--geometry", action="append", help="several times; by default all")
    parser.add_argument("--searches", type=positive, default=8, help="of each process")
    parser.add_argument("--processes", type=positive, default=3, help="pairs of processes")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.seed)
        return
    from kvbench.measure.machine import Machine
    from kvcache import GEOMETRIES

    for geometry in given.geometry or ():
        if geometry not in GEOMETRIES:
            parser.error(f"argument --geometry: unknown {geometry!r}: choose among {', '.join(GEOMETRIES)}")
    machine = Machine.describe()
    print(f"{given.processes} x {given.searches} searches, 1 thread; {machine.to_dict()}\n")
    print("| geometry | library | a search, ms | forward | cache | tree | rest | the same visits |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        sides = prepare(Path(folder), given.base)
        for geometry in given.geometry or GEOMETRIES:
            for line in lines(geometry, measure(sides, geometry, given.searches, given.processes)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
