"""Small asv result folders for tests: whatever history a test needs, in asv's own format."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["commit_name", "write_results"]

START = 1_795_000_000_000  # ms
DAY = 86_400_000


def commit_name(number: int) -> str:
    return f"{number + 1:040x}"


def write_results(
    folder: Path,
    values: Mapping[tuple[str, str | tuple[str, ...]], Sequence[float | None]],
    *,
    commits: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    machine: str = "vm",
    dates: Sequence[int] = (),
    param: str | tuple[str, ...] = "backend",
    environments: Sequence[Mapping[str, object]] = (),
    file: str = "",
) -> Path:
    """Write asv's files: ``values`` by benchmark and backend, one for each commit; None is a failure.

    Args:
        commits: full hashes; made up where there are none.
        units: of benchmarks; microseconds where nothing is said.
        dates: of commits, ms; a day apart where there are none.
        environments: of each commit, fields of asv's file: its environment; ``params`` are added to the machine's.
        file: in the names of files, which others of the same commits have not.
        param: the benchmarks' parameter, whose values stand where the backend does; or several, with tuples of values.
    """
    number = max(map(len, values.values()))
    names = commits or [commit_name(each) for each in range(number)]
    names_of_params = [param] if isinstance(param, str) else list(param)
    params: dict[str, list[list[str]]] = {}
    for benchmark, cell in values:
        lists = params.setdefault(benchmark, [[] for _ in names_of_params])
        for known, each in zip(lists, [cell] if isinstance(cell, str) else cell, strict=True):
            if each not in known:
                known.append(each)
    described = {
        name: {"param_names": names_of_params, "unit": (units or {}).get(name, "us"), "version": "1"} for name in params
    }
    (folder / machine).mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.json").write_text(json.dumps({"version": 2, **described}))
    (folder / machine / "machine.json").write_text("{}")
    for place, name in enumerate(names):
        results = {
            benchmark: [
                [
                    values[benchmark, cell[0] if isinstance(param, str) else cell][place]
                    for cell in itertools.product(*found)
                ],
                [[f"'{each}'" for each in known] for known in found], "1", 0, 0.1,
            ]
            for benchmark, found in params.items()
        }  # fmt: skip
        content = {
            "version": 2, "commit_hash": name, "date": dates[place] if dates else START + place * DAY,
            "params": {"machine": machine, "cpu": "some CPU"}, "durations": {},
            "result_columns": ["result", "params", "version", "started_at", "duration"], "results": results,
        }  # fmt: skip
        if environments:
            of = environments[place]
            content |= of | {"params": content["params"] | dict(of.get("params", {}))}
        (folder / machine / f"{name}-env{file}.json").write_text(json.dumps(content))
    return folder
