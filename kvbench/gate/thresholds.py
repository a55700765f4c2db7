"""How far a metric may move: a committed file, and which of its allowances are new with the commit at hand."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from kvbench.errors import KvbenchError, told
from kvbench.files import read_regular
from kvbench.gate.processes import GateFixture
from kvbench.metrics import METRICS, direction_of
from kvbench.parse import parse_toml

__all__ = ["TIME", "Limit", "Meant", "Thresholds", "ThresholdsError", "read_thresholds"]

TIME = "time"
EVERY = "*"  # metric of a benchmark
CHANGES = ("value", "limit", "gone")
DIRECTIONS = ("lower", "higher", "none")

Kind = TypeVar("Kind")


class ThresholdsError(KvbenchError):
    """A thresholds file that cannot be used: where, and what is wrong."""


class _Room(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a metric may move: as a share of the base's value, and in its unit (times: microseconds).

    The larger of the two counts.
    """

    relative: float = 0.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("relative", "absolute"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, got {getattr(self, name)}")

    def room(self, base: float) -> float:
        """How far a metric that was ``base`` may move, in its unit."""
        return max(self.relative * abs(base), self.absolute)


class Limit(_Room, frozen=True):
    """What is a change of one metric: a move for the worse by more than the room.

    With ``direction`` ``lower`` or ``higher`` that is better, and a change that way passes; with ``none`` none does.
    """

    direction: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {self.direction!r}")


class Meant(_Room, frozen=True):
    """A change that a commit says is meant: of ``metric`` (or ``time``), in either direction within the room.

    ``why`` is for whoever reads the commit; ``benchmark`` is a pattern of the benchmarks where it changes. ``change``
    is ``value``; ``limit`` where the metric's limit gets looser; ``gone`` where it is measured no more (of a whole
    benchmark, with ``*`` as the metric).
    """

    metric: str
    why: str
    benchmark: str = "*"
    change: str = "value"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.change not in CHANGES:
            raise ValueError(f"change must be one of {', '.join(CHANGES)}, got {self.change!r}")

    def covers(self, benchmark: str, metric: str, change: str = "value") -> bool:
        # Brackets are part of a benchmark's name, and no set of characters.
        is_at = fnmatchcase(benchmark, self.benchmark.replace("[", "[[]"))
        return change == self.change and self.metric in (metric, EVERY if change == "gone" else metric) and is_at


class _File(Struct, forbid_unknown_fields=True):
    """A thresholds file, its tables not read yet: an error in one of them shall name it."""

    time: Any
    metrics: dict[str, Any] = {}
    meant: list[Any] = []


class Thresholds(Struct, frozen=True):
    """All limits: of times, of deterministic metrics where the file has one, and changes that are meant."""

    time: Limit
    metrics: dict[str, Limit]
    meant: tuple[Meant, ...] = ()

    @classmethod
    def parse(cls, text: str, name: str) -> Thresholds:
        """Read a thresholds file; errors call it ``name``.

        Raises ThresholdsError: it is no TOML, lacks something, or has something that it should not.
        """
        try:
            content = parse_toml(text)
        except ValueError as error:
            raise ThresholdsError(f"{name}: not TOML: {error}") from None
        file = _convert(content, _File, name)
        time = _convert(file.time, Limit, f"{name}: [time]")
        if time.direction != "lower":
            raise ThresholdsError(f"{name}: [time]: direction can only be 'lower', got {time.direction!r}")
        metrics = {
            metric: _convert(_with_direction(metric, values), Limit, f"{name}: metric {metric!r}")
            for metric, values in file.metrics.items()
        }
        meant = [_convert(values, Meant, f"{name}: [[meant]] {place}") for place, values in enumerate(file.meant, 1)]
        known = {*metrics, *METRICS, TIME}
        for place, each in enumerate(meant, 1):
            if each.metric not in known and not (each.metric == EVERY and each.change == "gone"):
                fault = f"there is no metric {each.metric!r}: choose one of {sorted(known)}"
                raise ThresholdsError(f"{name}: [[meant]] {place}: {fault}")
        return cls(time, metrics, tuple(meant))

    def limit_of(self, metric: str) -> Limit | None:
        """The file's limit of a metric, or none at all in its direction (``kvbench.metrics``); None: an unknown one."""
        direction = direction_of(metric)
        return self.metrics.get(metric) or (None if direction is None else Limit(direction))

    def why_gone(self, benchmark: str, metric: str = EVERY) -> str:
        """Why it is meant that a metric of a benchmark, or all of it, is measured no more; empty where it is not."""
        return next((each.why for each in self.meant if each.covers(benchmark, metric, "gone")), "")


def read_thresholds(
    fixture: GateFixture, path: Path, warn: Callable[[str], None]
) -> tuple[Thresholds, Thresholds | None]:
    """The working tree's limits, and the base's; None where the base has no such file.

    Raises ThresholdsError: the file cannot be used. Of the base's file ``warn`` is called with that instead: the commit
    at hand may be the one that repairs it.
    """
    path = fixture.checkout / path
    name = os.path.relpath(path, fixture.checkout)
    try:
        of_head = Thresholds.parse(read_regular(path).decode(), name)
    except (OSError, UnicodeDecodeError) as error:
        raise ThresholdsError(f"{name}: cannot be read: {told(error)}") from None
    text = fixture.file_of_base(Path(name)) if path.is_relative_to(fixture.checkout) else None
    try:
        return of_head, None if text is None else Thresholds.parse(text, f"{name} of the base")
    except ThresholdsError as error:
        warn(f"{error}: the working tree's limits count, and no meant change as spent")
        return of_head, None


def _with_direction(metric: str, values: Any) -> Any:
    direction = direction_of(metric)
    return {"direction": direction} | values if direction and isinstance(values, dict) else values


def _convert(values: Any, kind: type[Kind], where: str) -> Kind:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ThresholdsError(f"{where}: {error}") from None
