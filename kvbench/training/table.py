"""Training runs side by side: the rows of their table, and what their comparison found, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvbench.results.training import TrainedBackend, TrainingResults

__all__ = ["Row", "rows_of", "verdict", "verdicts"]

_ENOUGH_KEYS = 0.5  # share of predicted latents with keys of their own; with fewer, equality proves little


@dataclass(frozen=True)
class Row:
    """One quantity of every run; ``form`` prints it, None is not known."""

    label: str
    values: list[float | int | None]
    form: str


# A search is of all environments at once.
_ROWS: tuple[tuple[str, str, Callable[[TrainedBackend], float | int]], ...] = (
    ("environment steps", "{}", lambda run: run.env_steps),
    ("searches", "{}", lambda run: run.searches),
    ("learning steps", "{}", lambda run: run.learn_steps),
    ("searches a second", "{:.2f}", lambda run: run.searches_per_second),
    ("cache, % of a search", "{:.1f}", lambda run: 100 * run.cache_share),
    ("cache, ms a search", "{:.2f}", lambda run: run.cache_ms_per_search),
    ("lookups", "{}", lambda run: run.lookups),
    ("hits, %", "{:.2f}", lambda run: 100 * run.hit_rate),
    ("stale hits, %", "{:.2f}", lambda run: 100 * run.stale_hit_rate),
    ("misses, %", "{:.2f}", lambda run: 100 * run.miss_rate),
    ("latents with keys of their own, %", "{:.1f}", lambda run: 100 * run.distinct_keys),
    ("cache memory, MB", "{:.2f}", lambda run: run.cache_bytes / 1e6),
    ("peak memory of the process, MB", "{:.0f}", lambda run: run.peak_bytes / 1e6),
    ("wall time, s", "{:.0f}", lambda run: run.wall_seconds),
)
# Of a new cache with a legacy one beside it.
_VALIDATED = {
    "retrievals compared with legacy, all the same": "compared",
    "stale hits of legacy beside it": "stale_hits",
    "found by the new cache alone": "only_primary",
    "found by legacy alone": "only_shadow",
}


def rows_of(results: TrainingResults) -> list[Row]:
    """The table, a column for each backend."""
    rows = [Row(label, [value(run) for run in results.backends], form) for label, form, value in _ROWS]
    if any(run.validation for run in results.backends):
        rows += [
            Row(label, [getattr(run.validation, name, None) for run in results.backends], "{}")
            for label, name in _VALIDATED.items()
        ]
    return rows


def verdicts(results: TrainingResults) -> list[str]:
    """A sentence for each run that ended before its time, then one for each that is compared with the first."""
    first, *others = results.backends
    ended = [
        f"{run.name} ended after {run.env_steps} environment steps: {run.ended_with}."
        for run in results.backends
        if run.ended_with
    ]
    return ended + [verdict(run, first) for run in others]


def verdict(run: TrainedBackend, first: TrainedBackend) -> str:
    """The comparison of a run with the first one."""
    if run.first_difference is not None:
        return (
            f"{run.name}: the first difference to {first.name} is at {run.first_difference}. Searched values differ by "
            f"{run.largest_difference:.2g} at most, as long as the actions are the same."
        )
    if not first.searches:
        return f"{run.name}: there is nothing to compare, as {first.name} ended before its first search was collected."
    keys = f"{100 * first.distinct_keys:.0f} % of predicted latents have keys of their own"
    little = f"; below {100 * _ENOUGH_KEYS:.0f} % this proves little" if first.distinct_keys < _ENOUGH_KEYS else ""
    return (
        f"{run.name}: identical to {first.name} in every number of {first.searches} searches and "
        f"{first.learn_steps} learning steps ({keys}{little})."
    )
