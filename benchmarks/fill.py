"""How many times faster a recurrent step is than LightZero 0.2.0's, by geometry and by how full contexts are.

``python benchmarks/fill.py`` takes ``legacy-0.2.0`` for it. LightZero's own methods are measured by
``tox -e lightzero -- python benchmarks/fill.py --against lightzero``.

A step is what one simulation asks of a cache (hash, look up, assemble, hash, store) and its share of the one clear that
ends a search. The model's work is left out. Contexts grow as in an episode (``kvbench.record.fills``). First each
backend's contents are checked, token by token. Then pairs of backends are timed in turns, step by step.

``--forward`` measures the other side: the attention over each storage's batch, over that of legacy's batch.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import sys
from collections.abc import Iterator

import torch
from command_line import Help, new_file, positive
from fill_runs import AGAINST, LIGHTZERO, STORAGES, Cell, Plan, measure, verify
from fill_tables import Result, markdown, table_rows

from kvbench.measure.machine import Machine
from kvbench.record.fills import FILLS
from kvcache import BACKENDS, GEOMETRIES


def main(arguments: list[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    torch.set_num_threads(given.threads)
    if given.forward and given.against == LIGHTZERO:
        sys.exit("--forward compares layouts of batches, and LightZero's is legacy's: leave --against out")
    baseline = "legacy" if given.forward else given.against
    plan = Plan(given.seeds, given.searches, given.forward, given.processor_time)
    result = Result(Machine.describe().to_dict(), str(Machine.describe()), f"{datetime.date.today()}", baseline, plan)
    print(result.heading, flush=True)
    # Garbage is collected before each measurement: looking through all that torch is made of takes long.
    gc.collect()
    gc.freeze()
    try:
        with torch.no_grad():
            _run(given, result)
    finally:
        gc.unfreeze()
    if given.markdown:
        print(markdown(result))
    if given.json:
        given.json.write_text(json.dumps(result.to_dict(), indent=1) + "\n")


def _run(given: argparse.Namespace, result: Result) -> None:
    """Check, measure, and print line by line."""
    if not given.no_check:
        _check(given, result.against)
    for cell in _cells(given, result):
        result.cells.append(cell)
        if cell.backend == given.backend[-1]:
            print("\n".join(table_rows(result, result.cells[-len(given.backend) :])), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    several = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument(
        "--geometry", **several, default=list(GEOMETRIES), choices=list(GEOMETRIES), help="measure these"
    )
    parser.add_argument("--fill", **several, default=list(FILLS), choices=FILLS, help="measure these")
    parser.add_argument(
        "--backend", **several, default=list(STORAGES), choices=[*BACKENDS, LIGHTZERO], help="measure these"
    )
    parser.add_argument("--against", default=AGAINST[0], choices=AGAINST, help="what they are compared with")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(Plan.seeds), help="of the traces")
    parser.add_argument("--searches", type=positive, default=Plan.searches, help="searches that count, of each seed")
    parser.add_argument("--threads", type=positive, default=1, help="that torch uses")
    parser.add_argument("--forward", action="store_true", help="measure the attention over the batches instead")
    parser.add_argument(
        "--processor-time", action="store_true", help="count no time in which others have the processor"
    )
    parser.add_argument("--no-check", action="store_true", help="leave the pass out that compares contents")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables of README.md and docs/storages.md too"
    )
    parser.add_argument("--json", type=new_file, help="write all numbers to this file")
    return parser


def _check(given: argparse.Namespace, baseline: str) -> None:
    """End with the faults where a backend returns other contents than were stored."""
    lookups = 0
    for geometry in given.geometry:
        for fill in given.fill:
            for name in dict.fromkeys((baseline, *given.backend)):
                found, faults = verify(GEOMETRIES[geometry], fill, name, given.seeds[0])
                lookups += found
                if faults:
                    sys.exit(f"{geometry}, {fill}, {name}: wrong contents: {faults[0]} ({len(faults)} faults)")
    print(f"contents: {lookups} lookups by {len(given.backend) + 1} backends, all as stored\n", flush=True)


def _cells(given: argparse.Namespace, result: Result) -> Iterator[Cell]:
    for geometry in given.geometry:
        for fill in given.fill:
            for backend in given.backend:
                yield measure(GEOMETRIES[geometry], fill, (result.against, backend), result.plan)


if __name__ == "__main__":
    main()
