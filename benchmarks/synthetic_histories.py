"""Synthetic histories with known steps: how often change points are told, missed and made up.

``python benchmarks/synthetic_histories.py --otava PYTHON`` judges them as ``kvbench report`` does, and beside that by
asv's step detection with its rule for regressions and by Otava (``pip install apache-otava==0.8.0`` into PYTHON's
environment), both on times as they are and on times over legacy's. ``docs/statistics.md`` has the table.

The noise is modelled on ``benchmarks/results``: times as they are spread by 0.2 from commit to commit (as logarithms),
and times over legacy's of the same cell by 0.03 to 0.1, family by family.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from asv.step_detect import detect_regressions, detect_steps

from kvbench.history.commits import Commits
from kvbench.history.series import CONTROL, History, Series
from kvbench.judge.change_points import judge_history

__all__ = [
    "NOISES",
    "Judge",
    "Score",
    "Synthetic",
    "Told",
    "asv_regressions",
    "kvbench_points",
    "make_history",
    "score",
]

MACHINE = "synthetic"
# Families and how far their times over legacy's spread: medians of each operation in benchmarks/results.
FAMILIES = {"hash": 0.03, "assemble": 0.07, "lookup": 0.08, "retrieve": 0.065, "store": 0.055, "step": 0.045,
            "batch": 0.06, "slide": 0.09}  # fmt: skip
CELLS = ("small", "narrow", "square", "tall", "many", "wide")
BACKENDS = ("private", "slab", "paged", "resident")
NOISES = ("mild", "sticky", "heavy")

# Of what a cell's backends share: a level of the process, one of three that are 25 % apart from first to last, and how
# busy the machine was just then; of what all series share, the machine's pace.
_LEVELS = np.array([-0.11, 0.0, 0.11])
_BUSY, _PACE = 0.15, 0.07
_STAYS = 0.8  # probability that a sticky level stays from one commit to the next
_HELD = 0.2  # share of a series' own variance that sticks as well
_UNALIKE = 0.25  # spread of the spreads within a family, as logarithms
_OUTLIERS, _FAR = 0.05, (4.0, 10.0)  # share of heavy values, and how many spreads they are off

STEPS = (1.1, 1.15, 1.2, 1.3, 1.5, 2.0)
ALONE, TOGETHER = 12, 3  # steps of one series, and of one backend in all cells of a family
FEWEST_BESIDE = 5  # commits on either side of a step
TOLERANCE = 2  # commits that a step may be told beside its own


@dataclass(frozen=True)
class Told:
    """A change point: of which series, at which commit, and whether it rises."""

    series: int
    place: int
    rises: bool = True


@dataclass(frozen=True)
class Synthetic:
    """A history and its steps: by series and commit, the factor. Series are those of the history without controls."""

    history: History
    steps: dict[tuple[int, int], float]

    @property
    def judged(self) -> list[Series]:
        return [each for each in self.history.series if not each.is_control]

    def values(self, over_legacy: bool) -> list[np.ndarray]:
        """Times, or times over legacy's."""
        controls = {(each.benchmark, each.sizes): each.values for each in self.history.series if each.is_control}
        return [each.values / (controls[each.benchmark, each.sizes] if over_legacy else 1.0) for each in self.judged]


@dataclass
class Score:
    """What was told of how many histories; ``by_step`` counts steps there were and steps found, by their factor."""

    found: int = 0
    false: int = 0
    steps: int = 0
    clean: int = 0
    false_in_clean: int = 0

    def __post_init__(self) -> None:
        self.there: Counter[float] = Counter()
        self.by_step: Counter[float] = Counter()

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else math.nan

    @property
    def recall(self) -> float:
        return self.found / self.steps if self.steps else math.nan

    def add(self, synthetic: Synthetic, told: Sequence[Told]) -> None:
        """A step is found once, by what is told of its series, in its direction, at most ``TOLERANCE`` commits off."""
        if not synthetic.steps:
            self.clean += 1
            self.false_in_clean += len(told)
            return
        left = set(told)
        for (series, place), factor in synthetic.steps.items():
            near = [each for each in left if each.series == series and each.rises == (factor > 1)]
            near = [each for each in near if abs(each.place - place) <= TOLERANCE]
            left -= set(near[:1])
            self.found += bool(near)
            self.by_step[factor] += bool(near)
            self.there[factor] += 1
        self.steps += len(synthetic.steps)
        self.false += len(left)


def make_history(seed: int, noise: str, commits: int = 40, with_steps: bool = True) -> Synthetic:
    """A history of ``NOISES`` ``noise``; series of 8 families, 6 cells and 4 backends, and legacy in each cell."""
    rng = np.random.default_rng([seed, NOISES.index(noise), commits, with_steps])
    factors, steps = np.zeros((len(FAMILIES) * len(CELLS) * len(BACKENDS), commits)), {}
    for series, place, factor in _planted(rng, commits) if with_steps else ():
        factors[series, place:] += math.log(factor)
        steps[series, place] = factor
    pace = _PACE * rng.normal(size=commits)
    made: list[Series] = []
    own = iter(factors)
    for family, spread in FAMILIES.items():
        for cell in CELLS:
            usual = rng.uniform(math.log(5), math.log(500))
            shared = usual + pace + _level(rng, noise, commits) + _BUSY * rng.normal(size=commits)
            alike = spread / math.sqrt(2) * math.exp(_UNALIKE * rng.normal())
            for backend in (CONTROL, *BACKENDS):
                planted = 0.0 if backend == CONTROL else rng.normal() + next(own)
                logs = shared + planted + alike * _own(rng, noise, commits)
                made.append(_series(family, cell, backend, np.exp(logs)))
    names = [f"{place:040x}" for place in range(commits)]
    return Synthetic(History({MACHINE: names}, {}, tuple(made)), steps)


def _planted(rng: np.random.Generator, commits: int) -> list[tuple[int, int, float]]:
    """Steps: series, commit, factor; a series has one at most."""
    free, found = set(range(len(FAMILIES) * len(CELLS) * len(BACKENDS))), []
    for event in range(TOGETHER + ALONE):
        family, backend = int(rng.integers(len(FAMILIES))), int(rng.integers(len(BACKENDS)))
        cells = range(len(CELLS)) if event < TOGETHER else [int(rng.integers(len(CELLS)))]
        place, factor = int(rng.integers(FEWEST_BESIDE, commits - FEWEST_BESIDE + 1)), float(rng.choice(STEPS))
        for cell in cells:
            series = (family * len(CELLS) + cell) * len(BACKENDS) + backend
            if series in free:
                free.remove(series)
                found.append((series, place, factor))
    return found


def _level(rng: np.random.Generator, noise: str, commits: int) -> np.ndarray:
    """A process's level; where it is sticky, it stays for some commits."""
    levels = rng.choice(_LEVELS, size=commits)
    return levels[_drawn_at(rng, commits)] if noise == "sticky" else levels


def _own(rng: np.random.Generator, noise: str, commits: int) -> np.ndarray:
    """What is a series' own, of spread 1: white; in part sticky; or with outliers, both ways and mostly slower."""
    white = rng.normal(size=commits)
    if noise == "sticky":
        held = rng.choice([-1.0, 0.0, 1.0], size=commits) / math.sqrt(2 / 3)
        return math.sqrt(1 - _HELD) * white + math.sqrt(_HELD) * held[_drawn_at(rng, commits)]
    if noise == "heavy":
        return white + _outliers(rng, commits)
    return white


def _outliers(rng: np.random.Generator, commits: int) -> np.ndarray:
    signs = rng.choice([1.0, 1.0, 1.0, -1.0], size=commits)
    return np.where(rng.random(commits) < _OUTLIERS, signs * rng.uniform(*_FAR, size=commits), 0.0)


def _drawn_at(rng: np.random.Generator, commits: int) -> np.ndarray:
    """For each commit the one at which what it has was drawn."""
    drawn = np.where(rng.random(commits) < _STAYS, 0, np.arange(commits))
    return np.maximum.accumulate(drawn)


def _series(family: str, cell: str, backend: str, values: np.ndarray) -> Series:
    params = {"cell": cell, "backend": backend if backend == CONTROL else f"new:{backend}"}
    text = ", ".join(f"{name}={value}" for name, value in params.items())
    none = np.zeros(len(values), dtype=bool)
    return Series(MACHINE, f"suite.track_{family}_time", text, "us", values, none, none, params)


Judge = Callable[[Synthetic], list[Told]]


def kvbench_points(synthetic: Synthetic) -> list[Told]:
    """As ``kvbench report`` tells them, for the worse and for the better."""
    places = {id(each): place for place, each in enumerate(synthetic.judged)}
    points = judge_history(synthetic.history, Commits()).change_points
    return [
        Told(places[id(each.series)], each.change.position, each.change.ratio > 1)
        for each in points
        if not each.series.is_control
    ]


def asv_regressions(synthetic: Synthetic, over_legacy: bool) -> list[Told]:
    """As asv's page of regressions has them: upward steps of 5 % and more that stand."""
    told = []
    for place, values in enumerate(synthetic.values(over_legacy)):
        found = detect_regressions(detect_steps(values.tolist()), threshold=0.05)
        told += [Told(place, after) for _, after, *_ in found[2] or ()]
    return told


_OTAVA = """
import json, sys
from otava.analysis import compute_change_points
def told(values):
    points, _ = compute_change_points(values, window_len=50, max_pvalue=0.001, min_magnitude=0.05)
    return [(int(each.index), bool(each.stats.mean_2 > each.stats.mean_1)) for each in points]
print(json.dumps([[told(values) for values in history] for history in json.load(sys.stdin)]))
"""


def otava_points(python: Path, histories: Sequence[Synthetic], over_legacy: bool) -> list[list[Told]]:
    """As Otava has them with its own settings, of 5 % and more; ``python`` is an interpreter that has it."""
    given = json.dumps([[each.tolist() for each in made.values(over_legacy)] for made in histories])
    done = subprocess.run([python, "-c", _OTAVA], input=given, capture_output=True, text=True, check=True)
    return [
        [Told(series, place, rises) for series, points in enumerate(history) for place, rises in points]
        for history in json.loads(done.stdout)
    ]


def score(histories: Sequence[Synthetic], told: Sequence[Sequence[Told]]) -> Score:
    found = Score()
    for synthetic, points in zip(histories, told, strict=True):
        found.add(synthetic, points)
    return found


def _row(noise: str, judge: str, found: Score) -> str:
    shares = " | ".join(f"{found.by_step[step] / max(found.there[step], 1):.2f}" for step in STEPS)
    clean = f"{found.false_in_clean} in {found.clean}"
    return f"| {noise} | {judge} | {found.precision:.3f} | {found.recall:.3f} | {clean} | {shares} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Judge synthetic histories.")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--otava", type=Path, help="a Python that has apache-otava")
    parser.add_argument("--alone", action="store_true", help="kvbench's judgement only")
    chosen = parser.parse_args(arguments)
    steps = " | ".join(f"x {step}" for step in STEPS)
    print(f"| noise | judge | precision | recall | false without a step | {steps} |")
    print("|---" * (5 + len(STEPS)) + "|")
    for noise in NOISES:
        histories = [
            make_history(seed, noise, chosen.commits, with_steps)
            for seed in range(chosen.first, chosen.first + chosen.seeds)
            for with_steps in (True, False)
        ]
        print(_row(noise, "kvbench", score(histories, [kvbench_points(each) for each in histories])), flush=True)
        for over_legacy, what in () if chosen.alone else ((False, "times"), (True, "over legacy")):
            told = [asv_regressions(each, over_legacy) for each in histories]
            print(_row(noise, f"asv 0.6.6, {what}", score(histories, told)), flush=True)
            if chosen.otava:
                told = otava_points(chosen.otava, histories, over_legacy)
                print(_row(noise, f"Otava 0.8, {what}", score(histories, told)), flush=True)


if __name__ == "__main__":
    main()
