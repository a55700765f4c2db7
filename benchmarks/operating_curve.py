"""How often the gate's test is right: simulated runs, by the code that judges, under several kinds of noise.

Usage: python benchmarks/operating_curve.py simulate [--trials 40000] [--measured FILE]
       python benchmarks/operating_curve.py measure FILE [--pairs 20]
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
from scipy import stats

from kvbench.files import temporary_folder
from kvbench.gate.processes import GateFixture
from kvbench.gate.session import MOST_PAIRS
from kvbench.gate.times import SHARE_OF_ALL
from kvbench.judge.paired import FEWEST_PAIRS, interval, pair_of_all, worse_level

ROOT = Path(__file__).parents[1]
LIMIT = math.log(1.05)
BENCHMARKS = 74
OF_ONE_OPERATION = 6
LOOKS = range(FEWEST_PAIRS, MOST_PAIRS + 1)
NEVER = 99
AT_ONCE = 500  # trials whose numbers are in memory together

Ratios = np.ndarray  # [trials, benchmarks, pairs]: logarithms of head / base
Noise = Callable[[np.random.Generator, int], Ratios]
Rule = Callable[[Ratios, int, float], tuple[np.ndarray, np.ndarray]]  # (pairs so far, looks, share) -> worse, decided

# What one benchmark takes in the processes of one run, the base's and the head's: the spread is of a logarithm.
SPEEDS, CHANCES = np.log([1, 1.25, 1.5]), [0.6, 0.25, 0.15]


def _pairs(processes: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], own: float = 0) -> Noise:
    """Ratios of independent processes; with ``own`` all benchmarks share them, and have that spread beside."""

    def drawn(random: np.random.Generator, trials: int) -> Ratios:
        shape = trials, 1 if own else BENCHMARKS, MOST_PAIRS, 2
        both = processes(random, shape)
        ratios = both[..., 1] - both[..., 0]
        return ratios + random.normal(0, own * math.sqrt(2), (trials, BENCHMARKS, MOST_PAIRS)) if own else ratios

    return drawn


def _speeds(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.choice(SPEEDS, p=CHANCES, size=shape) + random.normal(0, 0.01, shape)


def _bursts(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.normal(0, 0.02, shape) + (random.random(shape) < 0.15) * random.exponential(0.3, shape)


def _sticky(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Speeds that last: nine in ten processes have that of the one before, in the order A B, B A."""
    *outer, pairs, _ = shape
    drawn = _speeds(random, (*outer, 2 * pairs))
    for place in range(1, 2 * pairs):
        stays = random.random(outer) < 0.9
        drawn[..., place] = np.where(stays, drawn[..., place - 1], drawn[..., place])
    drawn = drawn.reshape(shape)
    drawn[..., 1::2, :] = drawn[..., 1::2, ::-1].copy()
    return drawn


def _few_with_speeds(random: np.random.Generator, trials: int) -> Ratios:
    """All but five benchmarks are quiet."""
    ratios = _pairs(lambda random, shape: random.normal(0, 0.01, shape))(random, trials)
    ratios[:, :5] = _pairs(_speeds)(random, trials)[:, :5]
    return ratios


def _unequal(random: np.random.Generator, trials: int) -> Ratios:
    spreads = np.exp(random.normal(math.log(0.035), 0.8, (trials, BENCHMARKS, 1)))
    return spreads * random.normal(0, 1, (trials, BENCHMARKS, MOST_PAIRS))


NOISES: dict[str, Noise] = {
    "quiet: normal, 2 %": _pairs(lambda random, shape: random.normal(0, 0.02, shape)),
    "normal, 5 %": _pairs(lambda random, shape: random.normal(0, 0.05, shape)),
    "heavy tails (t, 2.5)": _pairs(lambda random, shape: 0.03 * random.standard_t(2.5, shape)),
    "bursts: 15 % of processes": _pairs(_bursts),
    "three speeds, 25 % apart": _pairs(_speeds),
    "three speeds in 5 benchmarks": _few_with_speeds,
    "three speeds that last": _pairs(_sticky),
    "each its own, 1 to 10 %": _unequal,
    "common to all: normal, 5 %": _pairs(lambda random, shape: random.normal(0, 0.05, shape), own=0.02),
    "common to all: three speeds": _pairs(_speeds, own=0.02),
}
# What is slower, how much, and in how many benchmarks.
CHANGES = {
    "identical": (1, 0),
    "5 % in all": (1.05, BENCHMARKS),
    "10 % in 6": (1.1, OF_ONE_OPERATION),
    "10 % in all": (1.1, BENCHMARKS),
    "30 % in half": (1.3, BENCHMARKS // 2),
    "30 % in all": (1.3, BENCHMARKS),
    "2.5 times": (2.5, BENCHMARKS),
}


def _measured(path: Path) -> Noise:
    """Ratios of measured pairs of identical code, any number of times and either way round."""
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    names = sorted(set.intersection(*({*each["base"]} & {*each["head"]} for each in pairs)))
    known = np.log([[each["head"][name] / each["base"][name] for name in names] for each in pairs])

    def drawn(random: np.random.Generator, trials: int) -> Ratios:
        shape = trials, MOST_PAIRS
        ratios = known[random.integers(0, len(known), shape)] * random.choice([-1, 1], shape)[..., None]
        return ratios.swapaxes(1, 2)

    return drawn


def _by_interval(ratios: Ratios, pairs: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """The gate's rule at one look: what is worse, and what is not."""
    low, high = interval(ratios[..., :pairs], worse_level(MOST_PAIRS, pairs == MOST_PAIRS, share))
    return low > LIMIT, high < LIMIT


def _by_floor(ratios: Ratios, pairs: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Another rule, to compare: the spread is at least 0.10, the level of each look 2e-4."""
    low = ratios[..., :pairs].mean(-1) - stats.t.isf(2e-4, pairs - 1) * np.maximum(
        ratios[..., :pairs].std(-1, ddof=1), 0.10
    ) / math.sqrt(pairs)
    return low > LIMIT, interval(ratios[..., :pairs], 2e-4)[1] < LIMIT


def _first_worse(ratios: Ratios, rule: Rule, share: float) -> np.ndarray:
    """After how many pairs each series is worse; ``NEVER`` where it is decided otherwise, or not at all."""
    found = np.full(math.prod(ratios.shape[:-1]), NEVER)
    series, undecided = ratios.reshape(len(found), -1), np.arange(len(found))
    for pairs in LOOKS:
        worse, other = rule(series[undecided], pairs, share)
        found[undecided[worse]] = pairs
        undecided = undecided[~(worse | other)]
    return found.reshape(ratios.shape[:-1])


def _runs(noise: Noise, change: str, trials: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """After how many pairs runs are worse: by the gate's rule, and by the other."""
    random = np.random.default_rng(0)
    slower, many = CHANGES[change]
    for start in range(0, trials, AT_ONCE):
        ratios = noise(random, min(AT_ONCE, trials - start))
        ratios[:, ratios.shape[1] - many :] += math.log(slower)
        each = _first_worse(ratios, _by_interval, (1 - SHARE_OF_ALL) / ratios.shape[1]).min(axis=1)
        together = _first_worse(pair_of_all(ratios.swapaxes(1, 2)), _by_interval, SHARE_OF_ALL)
        yield np.minimum(each, together), _first_worse(ratios, _by_floor, 1).min(axis=1)


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.option("--trials", default=40_000, show_default=True, help="Runs of identical code; of a change a tenth.")
@click.option("--measured", type=click.Path(exists=True, path_type=Path), help="A file that 'measure' wrote.")
def simulate(trials: int, measured: Path | None) -> None:
    """Print the share of runs called worse in %, and after how many pairs half of those were."""
    noises = NOISES | ({"measured": _measured(measured)} if measured else {})
    lines: dict[str, list[str]] = {rule: [] for rule in ("the gate's test", "t-test, spread at least 0.10, 2e-4")}
    for kind, noise in noises.items():
        found = {
            change: [*_runs(noise, change, trials // (10 if many else 1))] for change, (_, many) in CHANGES.items()
        }
        for number, rule in enumerate(lines):
            cells = [_cell(np.concatenate([runs[number] for runs in found[change]])) for change in CHANGES]
            lines[rule].append(f"| {kind} | {' | '.join(cells)} |")
    for rule, rows in lines.items():
        head = [f"| {rule} | {' | '.join(CHANGES)} |", f"|---{'|---' * len(CHANGES)}|"]
        print("\n".join([*head, *rows, ""]))


def _cell(pairs: np.ndarray) -> str:
    worse = pairs[pairs < NEVER]
    after = f", {np.median(worse):.0f} pairs" if len(worse) * 2 > len(pairs) else ""
    return f"{100 * len(worse) / len(pairs):.3g}{after}"


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--pairs", default=20, show_default=True)
def measure(path: Path, pairs: int) -> None:
    """Append the times of pairs of processes, of HEAD against HEAD."""
    with temporary_folder("kvcache-noise") as folder:
        fixture = GateFixture(ROOT, "HEAD", folder)
        for number in range(pairs):
            order = ("base", "head") if number % 2 == 0 else ("head", "base")
            found = {side: fixture.measure(side, number + 1, "times").times for side in order}
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
