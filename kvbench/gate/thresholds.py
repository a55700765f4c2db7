"""How far a metric may move: a committed file, and which of its allowances are new with the commit at hand."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from kvbench.errors import KvbenchError
from kvbench.metrics import METRICS, direction_of

__all__ = ["TIME", "Limit", "Meant", "Thresholds", "ThresholdsError"]

TIME = "time"
DIRECTIONS = ("lower", "higher", "none")


class ThresholdsError(KvbenchError):
    """A thresholds file that cannot be used: where, and what is wrong."""


@dataclass(frozen=True)
class Limit:
    """What is a change of one metric.

    Attributes:
        direction: ``lower`` or ``higher`` is better, and a change that way passes; ``none``: no change passes.
        relative: share of the base's value by which it may get worse.
        absolute: by how much it may, in the metric's unit (times: microseconds); the larger of the two counts.
    """

    direction: str
    relative: float = 0.0
    absolute: float = 0.0

    def room(self, base: float) -> float:
        """How far a metric that was ``base`` may move for the worse."""
        return max(self.relative * abs(base), self.absolute)


@dataclass(frozen=True)
class Meant:
    """A change that a commit says is meant.

    Attributes:
        metric: which metric moves, or ``time``.
        why: for whoever reads the commit.
        benchmark: pattern of the benchmarks where it does.
        relative, absolute: as in ``Limit``, in either direction.
    """

    metric: str
    why: str
    benchmark: str = "*"
    relative: float = 0.0
    absolute: float = 0.0

    def covers(self, benchmark: str, metric: str) -> bool:
        # Brackets are part of a benchmark's name, and no set of characters.
        return metric == self.metric and fnmatchcase(benchmark, self.benchmark.replace("[", "[[]"))

    def room(self, base: float) -> float:
        """How far a metric that was ``base`` may move, in either direction."""
        return max(self.relative * abs(base), self.absolute)


@dataclass(frozen=True)
class Thresholds:
    """All limits.

    Attributes:
        time: of times.
        metrics: of deterministic metrics, by name, where the file says something of them.
        meant: changes that are meant.
    """

    time: Limit
    metrics: Mapping[str, Limit]
    meant: tuple[Meant, ...] = ()

    @classmethod
    def parse(cls, text: str, name: str) -> Thresholds:
        """Read a thresholds file.

        Args:
            text: of the file.
            name: how errors call it.

        Raises:
            ThresholdsError: it is no TOML, lacks something, or has something that it should not.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ThresholdsError(f"{name}: not TOML: {error}") from None
        unknown = set(content) - {"time", "metrics", "meant"}
        if unknown or "time" not in content:
            raise ThresholdsError(f"{name}: needs [time], may have [metrics] and [[meant]]; unknown: {sorted(unknown)}")
        metrics, meant = content.get("metrics", {}), content.get("meant", [])
        if not isinstance(metrics, dict) or not isinstance(meant, list):
            raise ThresholdsError(f"{name}: [metrics] is a table, and [[meant]] an array of tables")
        time = _limit(content["time"], f"{name}: [time]")
        if time.direction != "lower":
            raise ThresholdsError(f"{name}: [time]: direction can only be 'lower', got {time.direction!r}")
        return cls(
            time,
            {metric: _limit(values, f"{name}: metric {metric!r}", metric) for metric, values in metrics.items()},
            tuple(
                _meant(values, {*metrics, *METRICS, TIME}, f"{name}: [[meant]] {number}")
                for number, values in enumerate(meant, 1)
            ),
        )

    def limit_of(self, metric: str) -> Limit | None:
        """The file's limit of a metric, or none at all in its direction (``kvbench.metrics``); None: an unknown one."""
        direction = direction_of(metric)
        return self.metrics.get(metric) or (None if direction is None else Limit(direction))

    def without(self, spent: Thresholds) -> Thresholds:
        """These limits without the meant changes that ``spent`` (the base's file) has already."""
        return Thresholds(self.time, self.metrics, tuple(each for each in self.meant if each not in spent.meant))


def _limit(values: Any, where: str, metric: str = "") -> Limit:
    if isinstance(values, dict) and (direction := direction_of(metric)):
        values = {"direction": direction} | values
    _check(values, {"direction": str, "relative": float, "absolute": float}, {"direction"}, where)
    if values["direction"] not in DIRECTIONS:
        raise ThresholdsError(f"{where}: direction must be one of {', '.join(DIRECTIONS)}, got {values['direction']!r}")
    return Limit(**values)


def _meant(values: Any, metrics: set[str], where: str) -> Meant:
    fields = {"benchmark": str, "metric": str, "why": str, "relative": float, "absolute": float}
    _check(values, fields, {"metric", "why"}, where)
    if values["metric"] not in metrics:
        raise ThresholdsError(f"{where}: there is no metric {values['metric']!r}: choose one of {sorted(metrics)}")
    return Meant(**values)


def _check(values: Any, fields: dict[str, type], needed: set[str], where: str) -> None:
    if not isinstance(values, dict):
        raise ThresholdsError(f"{where}: must be a table, got {values!r}")
    if set(values) - set(fields) or needed - set(values):
        raise ThresholdsError(
            f"{where}: unknown {sorted(set(values) - set(fields))}, missing {sorted(needed - set(values))}"
        )
    for field, value in values.items():
        number = fields[field] is float
        if number and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf")):
            raise ThresholdsError(f"{where}: {field} must be a number from 0 up, got {value!r}")
        if not number and not isinstance(value, str):
            raise ThresholdsError(f"{where}: {field} must be a text, got {value!r}")
