"""asv's results as series over commits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kvbench.history.commits import Commits
from kvbench.history.environments import Environments
from kvbench.results.asv import check_found, read_asv
from kvbench.results.decode import LeftOut
from kvbench.results.skipped import Skipped, skip_reasons
from kvbench.text import seconds_of

__all__ = ["History", "Series", "read_history"]

RATIO = "ratio"
CONTROL = "legacy"  # the backend that is measured against, and is left alone
# asv's own kinds of benchmark whose values depend on the machine and the moment.
_MEASURED_KINDS = ("time_", "timeraw_", "mem_", "peakmem_")

# Of what the suite counts: the same code gives the same number.
_EXACT_UNITS = r"%|evictions|(bytes|operations|allocations|synchronisations)( per [a-z]+)?"
_OF_ANYTHING = ("%", RATIO)  # units that do not say what they are of


@dataclass(frozen=True, eq=False)
class Series:
    """One metric of one cell on one machine, commit by commit.

    Names are as asv has them; ``params`` is ``name=value, ...``, and ``cell`` has the values by name. There is a value
    for each of the history's commits of that machine, NaN where nothing was measured; ``failed`` says which failed, and
    ``skipped`` which asv skipped.
    """

    machine: str
    benchmark: str
    params: str
    unit: str
    values: np.ndarray
    failed: np.ndarray
    skipped: np.ndarray
    cell: dict[str, str]

    @property
    def is_exact(self) -> bool:
        """Whether the same commit gives the same value, on any machine and every time."""
        name = self.benchmark.rpartition(".")[2]
        if self.unit in _OF_ANYTHING and not self.is_of_a_cache:
            return False
        return bool(re.fullmatch(_EXACT_UNITS, self.unit)) and not name.startswith(_MEASURED_KINDS)

    @property
    def is_of_a_cache(self) -> bool:
        """Whether it is of one of the backends that the suite measures; another project's is of none."""
        return "backend" in self.cell

    @property
    def is_control(self) -> bool:
        """Whether it is a time of what is left alone: it shows the machine and the harness alone."""
        return self.is_time and self.cell.get("backend", "").partition("-")[0] == CONTROL

    @property
    def is_time(self) -> bool:
        return seconds_of(self.unit) is not None

    @property
    def lower_is_better(self) -> bool:
        """Whether it is known to be: of times and counts, and of what the suite measures of a cache."""
        if self.unit in _OF_ANYTHING and not self.is_of_a_cache:
            return False
        return bool(self.unit == RATIO or self.is_time or re.fullmatch(_EXACT_UNITS, self.unit))

    @property
    def metric(self) -> str:
        """The benchmark's name for people: ``Replays.step_time`` of ``replays.Replays.track_step_time``."""
        owner, _, name = self.benchmark.rpartition(".")
        # asv's other kinds say what is measured: two of one class may differ in nothing else.
        return ".".join(part for part in (owner.rpartition(".")[2], name.removeprefix("track_")) if part)

    @property
    def family(self) -> tuple[str, str, str]:
        """Series that scatter alike: of one machine and benchmark, and of one operation."""
        return self.machine, self.benchmark, self.cell.get("operation", "")

    def param(self, name: str) -> str | None:
        """The value of one parameter; None where the benchmark has none of that name."""
        return self.cell.get(name)

    @property
    def sizes(self) -> str:
        """What a series shares with those of other backends; of a benchmark with one parameter, nothing."""
        if len(self.cell) < 2:
            return ""
        return ", ".join(f"{name}={value}" for name, value in self.cell.items() if name != "backend")


@dataclass(frozen=True)
class History:
    """All series of a results folder, in the order of asv's results.

    Attributes:
        commits: full hashes in order, those that each machine measured.
        dates: of commits.
        skipped: machines, and how many values asv skipped there for what reason.
        is_empty: whether results were read and there were none.
        environments: in which each machine measured its commits; where nothing is said of them, in one.
        undescribed: benchmarks that have results and are no longer in ``benchmarks.json``: machine, name and the last
            commit that has them.
    """

    commits: dict[str, list[str]] = field(default_factory=dict)
    dates: dict[str, pd.Timestamp] = field(default_factory=dict)
    series: tuple[Series, ...] = ()
    skipped: tuple[tuple[str, Skipped], ...] = ()
    is_empty: bool = False
    undescribed: tuple[tuple[str, str, str], ...] = ()
    environments: dict[str, Environments] = field(default_factory=dict)

    def environments_of(self, machine: str) -> Environments:
        """In which a machine measured its commits."""
        found = self.environments.get(machine)
        return Environments.of([{}] * len(self.commits[machine])) if found is None else found

    def environment_change(self, machine: str, before: str, after: str) -> str:
        """What changed in a machine's environment from one commit to another; empty where nothing is known to have."""
        names = self.commits.get(machine, [])
        if before not in names or after not in names:
            return ""
        return self.environments_of(machine).change(names.index(before), names.index(after))

    def cells(self, machine: str, benchmark: str) -> dict[str, dict[str, str]]:
        """Parameters of a benchmark on a machine, by their text."""
        return {
            each.params: each.cell for each in self.series if (each.machine, each.benchmark) == (machine, benchmark)
        }

    def values(self, machine: str, benchmark: str) -> dict[str, np.ndarray]:
        """Values of a benchmark on a machine by parameters, one for each of its commits."""
        return {
            each.params: each.values for each in self.series if (each.machine, each.benchmark) == (machine, benchmark)
        }

    def at(self, machine: str, benchmark: str) -> Iterator[tuple[str, dict[str, float]]]:
        """Commits of a machine with values of a benchmark, the last first, and those by parameters."""
        chosen = self.values(machine, benchmark)
        for place in reversed(range(len(self.commits.get(machine, ())))):
            values = {params: float(each[place]) for params, each in chosen.items() if not np.isnan(each[place])}
            if values:
                yield self.commits[machine][place], values


def read_history(folder: str | Path, commits: Commits, left_out: LeftOut | None = None) -> History:
    """Read asv's results. Commits are in the repository's order; unknown ones are where their dates put them.

    What does not fit is left out, as ``load_results`` does. Raises ResultsError, as that.
    """
    results = read_asv(folder, LeftOut() if left_out is None else left_out)
    frame = results.values()
    if frame.empty:
        check_found(results.left_out)
    dates = dict(zip(frame["commit"], frame["date"], strict=True))
    order = _order(dates, commits)
    machines = {
        str(machine): sorted(rows["commit"].unique(), key=order.__getitem__)
        for machine, rows in frame.groupby("machine", sort=True)
    }
    settings = results.settings()
    environments = {
        machine: Environments.of(settings[machine, name] for name in names) for machine, names in machines.items()
    }
    undescribed = tuple(
        (machine, benchmark, max((each for each in names if each in order), key=order.__getitem__))
        for (machine, benchmark), names in results.undescribed().items()
        if order.keys() & names
    )
    series = tuple(_series(frame, machines))
    return History(machines, dates, series, tuple(_skipped(frame)), frame.empty, undescribed, environments)


def _order(dates: dict[str, pd.Timestamp], commits: Commits) -> dict[str, int]:
    """Places of commits: the repository's order; those it does not know where their dates put them among the others."""
    latest = pd.Timestamp.min.tz_localize("UTC")
    keys: dict[str, tuple[pd.Timestamp, int, int]] = {}
    for name in sorted(dates.keys() & commits.places.keys(), key=commits.places.__getitem__):
        latest = max(latest, dates[name])  # a child may be dated before its parent
        keys[name] = latest, 0, len(keys)
    keys |= {name: (date, 1, place) for place, (name, date) in enumerate(dates.items()) if name not in keys}
    return {name: place for place, name in enumerate(sorted(keys, key=keys.__getitem__))}


def _series(frame: pd.DataFrame, machines: dict[str, list[str]]) -> Iterator[Series]:
    own = ["machine", "benchmark", "params", "unit"]
    keys = frame[[*own, "cell"]].drop_duplicates(own)
    places = {(machine, name): place for machine, names in machines.items() for place, name in enumerate(names)}
    rows = frame.groupby(own, sort=False).ngroup().to_numpy()
    columns = np.array([places[each] for each in zip(frame["machine"], frame["commit"], strict=True)], dtype=int)
    values = np.full((len(keys), max(map(len, machines.values()), default=0)), np.nan)
    failed, skipped = np.zeros(values.shape, dtype=bool), np.zeros(values.shape, dtype=bool)
    values[rows, columns] = frame["value"]
    failed[rows, columns] = frame["state"] == "failed"
    skipped[rows, columns] = frame["state"] == "skipped"
    for key, one, failures, skips in zip(keys.to_dict("records"), values, failed, skipped, strict=True):
        if failures.any() or not np.isnan(one).all():
            number = len(machines[key["machine"]])
            key["cell"] = dict(key["cell"])
            yield Series(**key, values=one[:number], failed=failures[:number], skipped=skips[:number])


def _skipped(frame: pd.DataFrame) -> Iterator[tuple[str, Skipped]]:
    for machine, rows in frame.groupby("machine", sort=True):
        yield from ((str(machine), each) for each in skip_reasons(rows, rows))
