"""asv's results as series over commits, and where they step."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kvcache.report.changes import Change, exact_changes, measured_changes
from kvcache.report.commits import Commits
from kvcache.report.text import clean, seconds_of
from kvcache.results import load_results

__all__ = ["History", "Series", "read_history"]

RATIO = "ratio"
CONTROL = "backend=legacy"  # what is measured against, and must not drift itself
FEWEST_CONTROLS = 3
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
        pace: how slow each machine was at each of its commits, as a factor on its usual time; of machines of which it
            is known.
        skipped: values that asv skipped, by machine, benchmark and device.
    """

    commits: dict[str, list[str]] = field(default_factory=dict)
    dates: dict[str, pd.Timestamp] = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    pace: dict[str, np.ndarray] = field(default_factory=dict)
    skipped: tuple[tuple[str, str, str, int], ...] = ()

    def values(self, machine: str, benchmark: str) -> dict[str, np.ndarray]:
        """Values of a benchmark on a machine by parameters, one for each of its commits."""
        return {
            each.params: each.values for each in self.series if (each.machine, each.benchmark) == (machine, benchmark)
        }

    def latest(self, machine: str, benchmark: str) -> tuple[str, dict[str, float]]:
        """The last commit of a machine with values of a benchmark, and those by parameters; empty without any."""
        chosen = [each for each in self.series if (each.machine, each.benchmark) == (machine, benchmark)]
        for place in reversed(range(len(self.commits.get(machine, ())))):
            values = {each.params: float(each.values[place]) for each in chosen if not np.isnan(each.values[place])}
            if values:
                return self.commits[machine][place], values
        return "", {}


def read_history(folder: str | Path, commits: Commits) -> History:
    """Read asv's results and find where they step.

    Commits stand in the repository's order; where it does not know all of them, in the order of their dates.

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
    )


def _order(frame: pd.DataFrame, commits: Commits) -> dict[str, int]:
    names = list(dict.fromkeys(frame["commit"]))
    if all(name in commits.places for name in names):
        names.sort(key=commits.places.__getitem__)
    return {name: place for place, name in enumerate(names)}


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
    """How slow the machine was at each commit: what legacy took there, over what it takes as a rule."""
    controls = [
        each
        for each in series
        if each.machine == machine and seconds_of(each.unit) is not None and CONTROL in each.params.split(", ")
    ]
    if len(controls) < FEWEST_CONTROLS:
        return None
    values = np.array([each.values for each in controls])
    values[values <= 0] = np.nan
    with np.errstate(all="ignore"):
        relative = np.log(values) - np.nanmedian(np.log(values), axis=1, keepdims=True)
    measured = ~np.isnan(relative).all(axis=0)
    pace = np.ones(values.shape[1])
    pace[measured] = np.exp(np.nanmedian(relative[:, measured], axis=0))
    return pace


def _with_changes(series: list[Series], pace: dict[str, np.ndarray]) -> list[Series]:
    measured = [each for each in series if not each.is_exact]
    # A ratio of two things measured in turns has had the machine's pace taken out already; only times have it.
    factors = [None if seconds_of(each.unit) is None else pace.get(each.machine) for each in measured]
    judged = iter(measured_changes([each.values for each in measured], factors))
    return [
        Series(
            each.machine, each.benchmark, each.params, each.unit, each.values, each.failed,
            tuple(exact_changes(each.values) if each.is_exact else next(judged)),
        )
        for each in series
    ]  # fmt: skip


def _skipped(frame: pd.DataFrame) -> list[tuple[str, str, str, int]]:
    skipped = frame[frame["state"] == "skipped"]
    device = skipped["params"].str.extract(r"(?:^|, )device=([^,]*)", expand=False).fillna("")
    counts = skipped.groupby(["machine", "benchmark", device]).size()
    return [(str(a), str(b), str(c), int(number)) for (a, b, c), number in counts.items()]
