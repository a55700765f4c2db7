"""How many steps of ``synthetic_histories`` could be found at all: by who knows their place and how the values scatter.

``python benchmarks/history_oracle.py``: a step of one series is found where the best linear estimate is surer than 1 %
of false ones needs (30 steps, 192 series, all places of 40 commits). The estimate has legacy's noise from the cell's
other series. Steps of a whole group are taken for found.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, stats
from synthetic_histories import (
    _HELD,
    _OUTLIERS,
    _STAYS,
    _UNALIKE,
    ALONE,
    BACKENDS,
    CELLS,
    FAMILIES,
    FEWEST_BESIDE,
    NOISES,
    STEPS,
    TOGETHER,
)

from kvbench.judge.scan import chance_of_largest

COMMITS, DRAWS = 40, 100_000


def variance(place: int, noise: str) -> float:
    """Of the best estimate of a step, over that of one value; heavy noise: of values that are no outliers."""
    held = _HELD if noise == "sticky" else 0.0
    apart = np.abs(np.subtract.outer(np.arange(COMMITS), np.arange(COMMITS)))
    covariance = (1 - held) * np.eye(COMMITS) + held * _STAYS**apart
    both = np.column_stack([np.ones(COMMITS), np.arange(COMMITS) >= place])
    found = np.linalg.inv(both.T @ np.linalg.solve(covariance, both))[1, 1]
    return float(found / (1 - _OUTLIERS) if noise == "heavy" else found)


def main() -> None:
    rng, series = np.random.default_rng(0), len(FAMILIES) * len(CELLS) * len(BACKENDS)
    steps = TOGETHER * len(CELLS) + ALONE
    chance = 0.01 * steps / series
    needed = optimize.brentq(lambda x: chance_of_largest(x, COMMITS, 3) - chance, 1, 10)
    places = rng.integers(FEWEST_BESIDE, COMMITS - FEWEST_BESIDE + 1, DRAWS)
    factors = rng.choice(STEPS, DRAWS)
    spread = rng.choice(list(FAMILIES.values()), DRAWS) / math.sqrt(2) * np.exp(_UNALIKE * rng.normal(size=DRAWS))
    spread *= math.sqrt(1 + 1 / len(BACKENDS))  # what the cell's other series leave of legacy's noise
    print(f"z of {needed:.2f} is needed")
    for noise in NOISES:
        known = {place: variance(place, noise) for place in np.unique(places)}
        error = spread * np.sqrt([known[place] for place in places])
        found = stats.norm.cdf(np.log(factors) / error - needed)
        by_step = ", ".join(f"x {step}: {found[factors == step].mean():.2f}" for step in STEPS)
        whole = (ALONE * found.mean() + TOGETHER * len(CELLS)) / steps
        print(f"{noise}: of one series {found.mean():.3f} ({by_step}); of all {whole:.3f}")


if __name__ == "__main__":
    main()
