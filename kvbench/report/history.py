"""asv's results as series over commits, and where they step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kvbench.report.changes import Change, exact_changes, measured_changes
from kvbench.report.commits import Commits
from kvbench.report.pace import machine_pace
from kvbench.report.text import clean, seconds_of
from kvbench.results.asv import load_results

__all__ = ["History", "Series", "read_history"]

RATIO = "ratio"
CONTROL = "legacy"  # the backend that is measured against, and is left alone
# asv's own kinds of benchmark whose values depend on the machine and the moment.
_MEASURED_KINDS = ("time_", "timeraw_", "mem_", "peakmem_")

# Of what the suite counts: the same code gives the same number.
_EXACT_UNITS = r"%|evictions|(bytes|operations|allocations|synchronisations)( per [a-z]+)?"


@dataclass(frozen=True, eq=False)
class Series:
    """One metric of one cell on one machine, commit by commit.

    Attributes:
        machine, benchmark, params, unit: as asv has them; ``params`` is ``name=value, ...``.
        values: one for each of the history's commits of that machine; NaN where nothing was measured.
        failed: which of them failed.
        changes: where it steps.
    """

    machine: str
    benchmark: str
    params: str
    unit: str
    values: np.ndarray
    failed: np.ndarray
    changes: tuple[Change, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether the same commit gives the same value, on any machine and every time."""
        return bool(re.fullmatch(_EXACT_UNITS, self.unit)) and not self.benchmark.rpartition(".")[2].startswith(
            _MEASURED_KINDS
        )

    @property
    def is_control(self) -> bool:
        """Whether it is a time of what is left alone: it tells of the machine, and of the harness, alone."""
        return seconds_of(self.unit) is not None and self.cell.get("backend", "").partition("-")[0] == CONTROL

    @property
    def lower_is_better(self) -> bool:
        """Whether it is known to be: of what the suite measures, by its units. Another's direction is not known."""
        return bool(self.unit == RATIO or seconds_of(self.unit) is not None or re.fullmatch(_EXACT_UNITS, self.unit))

    @property
    def metric(self) -> str:
        """The benchmark's name for people: ``Replays.step_time`` of ``replays.Replays.track_step_time``."""
        owner, _, name = self.benchmark.rpartition(".")
        # asv's other kinds say what is measured: two of one class may differ in nothing else.
        return ".".join(part for part in (owner.rpartition(".")[2], name.removeprefix("track_")) if part)

    def param(self, name: str) -> str | None:
        """The value of one parameter; None where the benchmark has none of that name."""
        return self.cell.get(name)

    def params_without(self, name: str) -> str:
        """All parameters but one."""
        return ", ".join(f"{each}={value}" for each, value in self.cell.items() if each != name)

    @property
    def sizes(self) -> str:
        """What a series shares with those of other backends; of a benchmark with one parameter, nothing."""
        if "backend" not in self.cell:
            return self.params if len(self.cell) > 1 else ""
        return self.params_without("backend")

    @property
    def cell(self) -> dict[str, str]:
        """Parameters by name."""
        pairs = (part.partition("=") for part in self.params.split(", ") if part)
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class History:
    """All series of a results folder.

    Attributes:
        commits: full hashes in order, those that each machine measured.
        dates: of commits.
        series: in the order of asv's results.
        pace: how slow each machine was at each of its commits, as a factor on its usual time, NaN where that is not
            known; of machines of which anything is.
        skipped: values that asv skipped, by machine, benchmark and device.
        is_empty: whether results were read and there were none.
    """

    commits: dict[str, list[str]] = field(default_factory=dict)
    dates: dict[str, pd.Timestamp] = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    pace: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: tuple[tuple[str, str, str, int], ...] = ()
    is_empty: bool = False

    def values(self, machine: str, benchmark: str) -> dict[str, np.ndarray]:
        """Values of a benchmark on a machine by parameters, one for each of its commits."""
        return {
            each.params: each.values for each in self.series if (each.machine, each.benchmark) == (machine, benchmark)
        }

    def judged(self, series: Series) -> np.ndarray:
        """Which of a measured series' values are judged: of times, those at commits whose pace is known."""
        pace = self.pace.get(series.machine)
        values = series.values if pace is None or seconds_of(series.unit) is None else series.values * pace
        return np.asarray(~np.isnan(values))

    def at(self, machine: str, benchmark: str) -> Iterator[tuple[str, dict[str, float]]]:
        """Commits of a machine with values of a benchmark, the last first, and those by parameters."""
        chosen = self.values(machine, benchmark)
        for place in reversed(range(len(self.commits.get(machine, ())))):
            values = {params: float(each[place]) for params, each in chosen.items() if not np.isnan(each[place])}
            if values:
                yield self.commits[machine][place], values


def read_history(folder: str | Path, commits: Commits) -> History:
    """Read asv's results and find where they step.

    Commits stand in the repository's order; those that it does not know stand where their dates put them.

    Raises:
        ResultsError: as ``load_results``.
    """
    frame = load_results(folder)
    for column in ("machine", "benchmark", "params", "unit"):
        frame[column] = frame[column].map({text: clean(str(text)) for text in frame[column].unique()})
    order = _order(frame, commits)
    machines = {
        str(machine): sorted(rows["commit"].unique(), key=order.__getitem__)
        for machine, rows in frame.groupby("machine", sort=True)
    }
    series = _series(frame, machines)
    pace = {machine: factor for machine in machines if (factor := _pace(series, machine)) is not None}
    return History(
        machines,
        dict(zip(frame["commit"], frame["date"], strict=True)),
        tuple(_with_changes(series, pace)),
        pace,
        tuple(_skipped(frame)),
        frame.empty,
    )


def _order(frame: pd.DataFrame, commits: Commits) -> dict[str, int]:
    """Places of commits: the repository's order; those it does not know where their dates put them among the others."""
    dates = dict(zip(frame["commit"], frame["date"], strict=True))
    latest = pd.Timestamp.min.tz_localize("UTC")
    keys: dict[str, tuple[pd.Timestamp, int, int]] = {}
    for name in sorted((name for name in dates if name in commits.places), key=commits.places.__getitem__):
        latest = max(latest, dates[name])  # a child may be dated before its parent
        keys[name] = latest, 0, len(keys)
    keys |= {name: (date, 1, place) for place, (name, date) in enumerate(dates.items()) if name not in keys}
    return {name: place for place, name in enumerate(sorted(keys, key=keys.__getitem__))}


def _series(frame: pd.DataFrame, machines: dict[str, list[str]]) -> list[Series]:
    places = {machine: {name: place for place, name in enumerate(names)} for machine, names in machines.items()}
    found: dict[tuple[str, str, str, str], tuple[np.ndarray, np.ndarray]] = {}
    columns = (frame[name] for name in ("machine", "benchmark", "params", "unit", "commit", "value", "state"))
    for machine, benchmark, params, unit, commit, value, state in zip(*columns, strict=True):
        key = machine, benchmark, params, unit
        if key not in found:
            number = len(machines[machine])
            found[key] = np.full(number, np.nan), np.zeros(number, dtype=bool)
        values, failed = found[key]
        place = places[machine][commit]
        if state == "ok":
            values[place] = value
        failed[place] = state == "failed"
    return [
        Series(*key, values, failed)
        for key, (values, failed) in found.items()
        if failed.any() or not np.isnan(values).all()
    ]


def _pace(series: list[Series], machine: str) -> np.ndarray | None:
    controls = [each.values for each in series if each.machine == machine and each.is_control]
    return machine_pace(np.array(controls)) if controls else None


def _with_changes(series: list[Series], pace: dict[str, np.ndarray]) -> list[Series]:
    measured = [each for each in series if not each.is_exact]
    # A ratio of two things measured in turns has had the machine's pace taken out already; only times have it.
    factors = [None if seconds_of(each.unit) is None else pace.get(each.machine) for each in measured]
    controls = {_beside(each): each.values for each in series if each.is_control and each.param("backend") == CONTROL}
    beside = [
        None if each.is_control or seconds_of(each.unit) is None else controls.get(_beside(each)) for each in measured
    ]
    judged = iter(measured_changes([each.values for each in measured], factors, beside))
    return [
        Series(
            each.machine, each.benchmark, each.params, each.unit, each.values, each.failed,
            tuple(exact_changes(each.values) if each.is_exact else next(judged)),
        )
        for each in series
    ]  # fmt: skip


def _beside(series: Series) -> tuple[str, str, str]:
    """What a series shares with those of other backends that were measured with it."""
    return series.machine, series.benchmark, series.params_without("backend")


def _skipped(frame: pd.DataFrame) -> list[tuple[str, str, str, int]]:
    skipped = frame[frame["state"] == "skipped"]
    if skipped.empty:
        return []
    device = skipped["params"].str.extract(r"(?:^|, )device=([^,]*)", expand=False).fillna("")
    counts = skipped.groupby(["machine", "benchmark", device]).size()
    return [(str(a), str(b), str(c), int(number)) for (a, b, c), number in counts.items()]
