"""asv's results as lines that fit a terminal: one a series, with the last commits for which there is room."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.cells import cell_len, set_cell_size

from kvbench.cli.results_values import Group, Line, number, ratio
from kvbench.results.environment import Settings, difference

__all__ = ["Layout", "Measured", "environment_changes", "table_lines"]

_GAP = "  "
_COLUMN = 8  # of a value, or of a commit's first digits
_WITH_GAP = _COLUMN + len(_GAP)
_MIN_LABEL = 16
_FEWEST = 3  # last commits that are shown in a row; where fewer fit, it is the first and the last
_SHORTEST = 6  # that a parameter's value is cut to
_INDENT = "  "
_CUT = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, eq=False)
class Measured:
    """What one machine measured of the chosen commits, in their order."""

    machine: str
    commits: list[str]
    dates: list[pd.Timestamp]
    environments: list[Settings]
    groups: list[Group]
    counts: Counter[str]

    @property
    def common(self) -> dict[str, str]:
        """Parameters that are the same in all series."""
        cells = [line.cell for group in self.groups for line in group.lines]
        return dict(set.intersection(*(set(cell.items()) for cell in cells))) if cells else {}

    def ratio(self, line: Line, places: Sequence[int]) -> str:
        """The last value over the first one that was measured in the same environment."""
        known = [place for place in places if line.states[place] == "ok"]
        alike = [place for place in known if self.environments[place] == self.environments[known[-1]]]
        return ratio(line.values[alike[0]], line.values[alike[-1]]) if len(alike) > 1 else ""


@dataclass(frozen=True)
class Layout:
    """What fits: the width of labels, places of the commits, and those of which there is a ratio, if any."""

    label: int
    places: list[int]
    compared: list[int]

    @classmethod
    def fitting(cls, width: int, longest: int, commits: int) -> Layout:
        label = min(longest, max(_MIN_LABEL, width - 2 * _WITH_GAP))
        room = (width - label) // _WITH_GAP - 1  # one is for the ratio
        every = list(range(commits))
        if room >= min(commits, _FEWEST):
            return cls(label, every[-room:], every[-room:] if commits > 1 else [])
        return cls(label, every[-1:] if room < 2 else [0, commits - 1], every)


def table_lines(measured: Measured, width: int) -> Iterator[tuple[str, bool]]:
    """Lines of one machine's table, and whether each is a heading."""
    common = measured.common
    labels = _labels(measured.groups, common, max(_MIN_LABEL, width // 2))
    longest = max((cell_len(each) for own in labels for each in own), default=0)
    layout = Layout.fitting(width, longest, len(measured.commits))
    yield from _title(measured, layout, common, width)
    for group, own in zip(measured.groups, labels, strict=True):
        _, scale = group.scaled()
        if not _is_alone(group, common):
            yield from _headings(_heading(group, common), width)
        for label, line in zip(own, group.lines, strict=True):
            cells = [_cell(line, place, scale) for place in layout.places]
            ratio = [measured.ratio(line, layout.compared)] if layout.compared else []
            yield _line(label, [*cells, *ratio], layout), False


def _title(measured: Measured, layout: Layout, common: dict[str, str], width: int) -> Iterator[tuple[str, bool]]:
    """The machine, what all series share, and the columns."""
    dates, shown, known = measured.dates, len(layout.places), len(measured.commits)
    number_of = f"{shown} of {known} commits" if shown < known else f"{known} commit{'s' if known > 1 else ''}"
    days = list(dict.fromkeys(f"{each:%Y-%m-%d}" for each in (dates[0], dates[-1])))
    title = [f"{measured.machine}: {number_of}", " to ".join(days), *map("=".join, common.items())]
    yield from _headings(", ".join(title), width)
    commits = [measured.commits[place][:_COLUMN] for place in layout.places]
    years = {dates[place].year for place in layout.places}
    form = "%y-%m-%d" if len(years) > 1 else "%m-%d" if len(days) > 1 else "%H:%M"
    moments = [f"{dates[place]:{form}}" for place in layout.places]
    has_ratio = bool(layout.compared)
    yield _line("", [*commits, *(["last/"] * has_ratio)], layout), False
    yield _line("", [*moments, *(["first"] * has_ratio)], layout), False


def _headings(text: str, width: int) -> Iterator[tuple[str, bool]]:
    for line in textwrap.wrap(text, width, subsequent_indent=2 * _INDENT) or [""]:
        yield line, True


def _heading(group: Group, common: dict[str, str]) -> str:
    names = [name for name in group.lines[0].cell if name not in common]
    return f"{group.name}, {group.scaled()[0]}" + (f", by {', '.join(names)}" if names else "")


def _is_alone(group: Group, common: dict[str, str]) -> bool:
    """Whether it is one series without parameters to tell: then its line needs no heading."""
    return len(group.lines) == 1 and not group.lines[0].cell.keys() - common.keys()


def _labels(groups: Sequence[Group], common: dict[str, str], most: int) -> list[list[str]]:
    """Of each group's lines: the parameters' values, cut so far that all fit or two would be alike."""
    own = [
        [tuple(text for name, text in line.cell.items() if name not in common) for line in group.lines]
        for group in groups
    ]
    places = dict.fromkeys(place for rows in own for place in rows)
    longest = max((cell_len(text) for place in places for text in place), default=0)
    found = {place: _INDENT + " ".join(place) for place in places}
    for length in range(longest - 1, _SHORTEST, -1):
        if max(map(cell_len, found.values())) <= most:
            break
        cut = {place: _INDENT + " ".join(_cut(text, length) for text in place) for place in places}
        if len(set(cut.values())) < len(cut):
            break
        found = cut
    return [
        [_heading(group, common)] if _is_alone(group, common) else [found[place] for place in rows]
        for group, rows in zip(groups, own, strict=True)
    ]


def _cut(text: str, length: int) -> str:
    """A text without its middle: what tells it from others is at its ends."""
    if cell_len(text) <= length:
        return text
    return set_cell_size(text, (length - 1) // 2) + _CUT + text[-(length - 1 - (length - 1) // 2) :]


def _cell(line: Line, place: int, scale: float) -> str:
    return number(line.values[place] / scale) if line.states[place] == "ok" else str(line.states[place])


def _line(label: str, cells: Sequence[str], layout: Layout) -> str:
    fitting = set_cell_size(_cut(label, layout.label), layout.label)
    return fitting + "".join(f"{_GAP}{each:>{_COLUMN}}" for each in cells)


def environment_changes(measured: Measured) -> Iterator[str]:
    """A sentence for each commit that was measured in another environment than the one before it."""
    for before, after, commit in zip(
        measured.environments, measured.environments[1:], measured.commits[1:], strict=False
    ):
        if before != after:
            since = f"{measured.machine}: environment changes with {commit[:_COLUMN]}"
            yield f"{since}: {difference(before, after)}; no ratio reaches across it"
