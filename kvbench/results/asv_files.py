"""asv's result files, read one by one: what does not fit is left out and named, and the rest is read.

A machine may measure one commit in several environments. Then it is several lines, each named after what tells it
apart. Where one environment takes another's place, the line goes on: ``AsvFile.settings`` says what it was measured in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from msgspec import Meta, Struct

from kvbench.parse import parse_json
from kvbench.results.decode import LeftOut, ResultsError, convert, read_json
from kvbench.results.environment import Settings, named, settings_of_asv

__all__ = ["MADE_BY", "AsvFile", "Benchmark", "Cells", "read_asv_files", "read_described"]

MADE_BY = "'asv run' of asv 0.6"
_VERSION = 2  # of asv's files
_OLD = "of asv's version 1: run 'asv update'"
_LATEST = 9_000_000_000_000  # ms: pandas' dates end in 2262
_NEAR = 0.01  # of a machine's memory: what is nearer is the same, since a kernel's own part of it varies


class Commit(Struct, frozen=True, kw_only=True):
    """asv's result file: one commit on one machine, in one environment. ``results`` has cells by ``result_columns``."""

    version: Literal[2]
    commit_hash: Annotated[str, Meta(pattern="^[0-9A-Za-z]{1,64}$")]  # commands are made of it
    env_name: str = ""
    date: Annotated[int, Meta(ge=0, le=_LATEST)]  # ms
    params: dict[str, Any]
    python: Any = None
    requirements: Any = None
    env_vars: Any = None
    result_columns: list[str]
    results: dict[str, Any]
    durations: Any = None  # seconds, by what took them

    def __post_init__(self) -> None:
        if not isinstance(self.params.get("machine"), str):
            raise ValueError("params have no machine")


class Cells(Struct, frozen=True, kw_only=True):
    """What is read of one benchmark's cells; asv cuts off what there is nothing of, from the right."""

    result: list[Any] | None = None
    params: list[list[str]] = []
    version: str | None = None
    duration: float | None = None  # seconds


class Benchmark(Struct, frozen=True):
    """What is read of a benchmark in ``benchmarks.json``."""

    version: str
    param_names: list[str]
    unit: str


@dataclass
class AsvFile:
    """One result file. ``line`` is the machine's name, and what tells this environment from others beside it."""

    path: Path
    content: Commit
    line: str = field(init=False)
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.line = str(self.content.params["machine"])
        of = self.content
        self.settings = settings_of_asv(of.params, of.python, [of.requirements, of.env_vars], of.env_name)

    @property
    def date(self) -> pd.Timestamp:
        """Of the commit."""
        return pd.Timestamp(self.content.date, unit="ms", tz="UTC")

    def cells(self, left_out: LeftOut) -> Iterator[tuple[str, Cells]]:
        """The benchmarks' names and cells."""
        for name, values in self.content.results.items():
            where = f"$.results[{name!r}]"
            try:
                listed = convert(self.path, values, list[Any], MADE_BY, where)
                named_cells = dict(zip(self.content.result_columns, listed, strict=False))
                yield name, convert(self.path, named_cells, Cells, MADE_BY, where)
            except ResultsError as error:
                left_out.add(self.path, error.fault)


def read_asv_files(folder: Path, left_out: LeftOut) -> list[AsvFile]:
    """Every machine's result files, by their paths; files that cannot be read are left out whole."""
    files = []
    for path in sorted(folder.glob("*/*.json")):
        if path.name == "machine.json":
            continue
        try:
            files.append(AsvFile(path, convert(path, _read(path), Commit, MADE_BY)))
        except ResultsError as error:
            left_out.add(path, error.fault, alike=error.fault == _OLD)
    by_machine: dict[str, list[AsvFile]] = {}
    for file in files:
        by_machine.setdefault(file.line, []).append(file)
    for own in by_machine.values():
        _join_memory(own)
        _name_lines(own)
    return files


def _join_memory(files: list[AsvFile]) -> None:
    """Sizes of a machine's memory that nearly agree become one."""
    known: list[float] = []
    for file in sorted(files, key=lambda file: file.content.date):
        text = file.settings.get("ram", "")
        if text.isdecimal() and len(text) < 20:
            same = next((each for each in known if abs(each - int(text)) <= _NEAR * each), None)
            known += [] if same else [int(text)]
            file.settings["ram"] = f"{same or int(text):.0f}"


@dataclass
class _Line:
    """Environments of one machine that followed each other, and the commits measured in them."""

    environments: list[Settings]
    commits: set[str]


def _name_lines(files: list[AsvFile]) -> None:
    """Put a machine's environments in lines, and name those where there are several.

    An environment continues the line that it is most alike of those that have none of its commits.
    """
    lines: list[_Line] = []
    for own in _by_environment(files):
        settings, commits = own[0].settings, {file.content.commit_hash for file in own}
        free = [line for line in lines if not line.commits & commits]
        line = min(free, key=lambda line: _distance(line.environments[-1], settings), default=None)
        if line is None:
            lines.append(line := _Line([], set()))
        line.environments.append(settings)
        line.commits |= commits
        for file in own:
            file.line = str(lines.index(line))
    names = _names(files[0].content.params["machine"], lines)
    for file in files:
        file.line = names[int(file.line)]


def _by_environment(files: list[AsvFile]) -> list[list[AsvFile]]:
    """In the order of their first commits."""
    found: dict[tuple[tuple[str, str], ...], list[AsvFile]] = {}
    for file in sorted(files, key=lambda file: file.content.date):
        found.setdefault(tuple(sorted(file.settings.items())), []).append(file)
    return list(found.values())


def _distance(one: Settings, other: Settings) -> int:
    return len(set(one.items()) ^ set(other.items()))


def _names(machine: str, lines: list[_Line]) -> list[str]:
    """Of each line; one alone is named after the machine, of several the last environments tell them apart."""
    if len(lines) == 1:
        return [machine]
    last = [line.environments[-1] for line in lines]
    found = [f"{machine} ({named(settings, last) or 'another environment'})" for settings in last]
    return [name if found.count(name) == 1 else f"{name} {place}" for place, name in enumerate(found, 1)]


def _read(path: Path) -> dict[str, Any]:
    """A file of asv's, of its present version. asv writes NaN, which JSON has not."""
    if path.exists() and not path.is_file():
        raise ResultsError(path, "not a file", MADE_BY)
    content = read_json(path, dict[str, Any], MADE_BY, lambda text: parse_json(text, float, keeps_rest=True))
    version = content.get("version")
    if version == 1:
        raise ResultsError(path, _OLD)
    if version != _VERSION:
        raise ResultsError(path, f"not asv's version {_VERSION}", MADE_BY)
    return content


def read_described(folder: Path, left_out: LeftOut) -> dict[str, Benchmark]:
    """What ``benchmarks.json`` describes."""
    path, found = folder / "benchmarks.json", {}
    for name, described in _read(path).items():
        if name != "version":
            try:
                found[name] = convert(path, described, Benchmark, MADE_BY, f"$[{name!r}]")
            except ResultsError as error:
                left_out.add(path, error.fault)
    return found
