"""Training runs on several caches: their curves over each other, their numbers, and whether they are the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from kvbench.judge.verdict import Verdict
from kvbench.report.panels import Cell, Panel, Plot, Series, Table
from kvbench.report.site import Group, PageLink, Site
from kvbench.report.text import clean, file_name, number, words
from kvbench.results.decode import read_json
from kvbench.results.training import MADE_BY, TrainingResults
from kvbench.training.table import rows_of, verdict, verdicts
from kvcache import __version__

__all__ = ["Headline", "Training", "headlines", "read_training", "write_training_page"]

_PAGE = "index"  # of a folder of runs
_LAST = 20  # episodes, or learning steps, of which a mean is given
_LEAD = (
    "All runs have the same seed, and a process each; only their caches differ. A search is that of all environments "
    "at once, and only searches that collect are timed. Lookups are those of roots and nodes, evaluations included."
)

_Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Headline:
    """A comparison with the first run, as the front page shows one; ``device`` says what kind of comparison it is."""

    geometry: str
    word: str
    sentence: str
    tone: str
    device: str = "training"


@dataclass(frozen=True)
class Training:
    """One file of training runs; ``name`` is what it is called."""

    content: TrainingResults
    name: str

    @property
    def title(self) -> str:
        """Of its page."""
        return f"Training on {self.content.environment}"

    @property
    def command(self) -> str:
        """The command that made it."""
        return shlex.join(["kvbench", *self.content.command])

    @property
    def lead(self) -> list[str]:
        """Paragraphs at the top of its page, the verdicts first."""
        return [*verdicts(self.content), _LEAD]

    def groups(self) -> list[Group]:
        """All panels of its page."""
        runs = self.content.backends
        returns = {run.name: run.returns for run in runs}
        losses = {run.name: run.losses for run in runs}
        headings = ["quantity", *(run.name for run in runs)]
        numbers = Table(headings, [[row.label, *row.values] for row in rows_of(self.content)])
        curves = [
            self._curves("Return of each episode", "environment steps", "return", returns),
            self._curves("Loss of each learning step", "learning steps", "weighted total loss", losses),
        ]
        return [
            Group("Curves", curves),
            Group("Numbers", [self._panel("Runs side by side", numbers)]),
            Group("How it was made", [self._panel("Machine, packages and settings", self._settings())]),
        ]

    def _panel(self, title: str, table: Table, plot: Plot | None = None, data: Table | None = None) -> Panel:
        name = file_name("training", title, beside=self.name)
        return Panel(name, title, table, command=self.command, plot=plot, data=data, open=plot is None)

    def _curves(self, title: str, x_label: str, y_label: str, curves: Mapping[str, _Points]) -> Panel:
        def hover(x: float, y: float, name: str) -> str:
            return f"{name}: {number(y)}\n{x_label} {number(x)}"

        drawn = [Series(name, *_columns(points), hover) for name, points in curves.items()]
        rows: list[list[Cell]] = [[name, len(points), *_summary(points)] for name, points in curves.items()]
        table = Table(("backend", "points", "first", "last", f"mean of the last {_LAST}", "largest"), rows)
        exact = Table(("backend", x_label, y_label), [[name, *point] for name in curves for point in curves[name]])
        return self._panel(title, table, Plot(x_label, y_label, drawn), exact)

    def _settings(self) -> Table:
        content = self.content
        run: dict[str, Cell] = {
            "library": content.library,
            "seed": content.seed,
            "environment steps asked for": content.env_steps,
        }
        settings = {f"--set {name}": str(value) for name, value in content.settings.items()}
        machine = {words(name): value for name, value in content.machine.items()}
        values: dict[str, Cell] = {**run, **content.packages, **machine, **settings}
        return Table(("what", "value"), [[what, _text(value)] for what, value in values.items()])


def _columns(points: _Points) -> tuple[list[float], list[float]]:
    return [float(x) for x, _ in points], [y for _, y in points]


def _summary(points: _Points) -> list[Cell]:
    values = [y for _, y in points]
    return [values[0], values[-1], fmean(values[-_LAST:]), max(values)] if values else [None] * 4


def _text(value: Cell | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def headlines(trainings: Iterable[Training]) -> list[Headline]:
    """What each run with another cache than the first came to."""
    return [
        Headline(
            training.content.environment,
            "differs" if run.first_difference else "identical",
            verdict(run, training.content.backends[0]),
            Verdict.MIXED if run.first_difference else Verdict.BETTER,
        )
        for training in trainings
        for run in training.content.backends[1:]
    ]


def read_training(path: Path, name: str = "") -> Training:
    """Read one result file, called by its own name unless one is given. Raises ResultsError, as ``read_json`` does."""
    return Training(read_json(path, TrainingResults, MADE_BY), name or clean(path.name))


def write_training_page(path: Path) -> Path:
    """Write the one page of a result file into its folder, and return where it is."""
    training = read_training(path)
    made = datetime.now(UTC).replace(microsecond=0).isoformat()
    site = Site(path.parent, "kvbench train", f"Made by: {training.command}; kvcache {__version__}, {made}")
    site.check()
    site.navigation.append(PageLink(f"{_PAGE}.html", training.title))
    with site.writing():
        site.pages(_PAGE, training.title, training.groups(), training.lead)
    return path.parent / site.finish()[0]
