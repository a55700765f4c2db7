"""Training runs that differ in their cache alone, each in a process of its own, one after the other."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kvbench.errors import KvbenchError
from kvbench.files import whole_or_absent
from kvbench.measure.machine import Machine
from kvbench.record.lightzero_config import LIGHTZERO_VERSION, load_config, require_lightzero
from kvbench.record.lightzero_log import quietly, tail
from kvbench.results.training import TrainedBackend, TrainingResults
from kvbench.training.compare import Comparison, compare
from kvbench.training.order import LOG, NUMBERS, SUMMARY, Order, Summary

__all__ = ["TrainingError", "TrainingSettings", "train"]

_MOST_POINTS = 1000  # of a curve
_WORKER = "kvbench.training.worker"
_PACKAGES = ("torch", "numpy", "lightzero")

# Called with a backend's name, and how many ``env_steps`` and ``learn_steps`` it has behind it.
Progress = Callable[[str, dict[str, int]], None]


class TrainingError(KvbenchError):
    """A run that failed, with the end of its log."""


@dataclass(frozen=True)
class TrainingSettings:
    """What to train; see ``Order``. ``command`` is the one that asks for it, after "kvbench"."""

    config: str
    settings: dict[str, Any]
    backends: Sequence[str]
    env_steps: int
    seed: int
    threads: int
    validates: bool = False
    command: Sequence[str] = ()


def train(
    settings: TrainingSettings, folder: Path, progress: Progress = lambda name, counts: None, worker: str = _WORKER
) -> TrainingResults:
    """Train with each backend, and compare every number with the first one's.

    Args:
        settings: of all runs.
        folder: for the files of the runs, each in a folder of its own.
        progress: called now and then.
        worker: the module that trains with one backend.

    Raises:
        ConfigError: LightZero is not installed, or the configuration is bad.
        TrainingError: a run failed.
    """
    require_lightzero()
    with quietly(Path(os.devnull), lambda line: None):  # a user's file may import LightZero, which then logs everything
        environment = load_config(settings.config).changed(settings.settings).name
    runs: list[tuple[str, Path, Summary]] = []
    for name in settings.backends:
        own = folder / name.replace(":", "-")
        own.mkdir(parents=True)
        runs.append((name, own, _run(_order(settings, name, own), progress, worker)))
    _, first, first_summary = runs[0]
    ended = first_summary.ended_with is not None
    compared = [compare(first / NUMBERS, own / NUMBERS, until_first_ends=ended) for _, own, _ in runs]
    return TrainingResults(
        command=list(settings.command),
        library=f"LightZero {LIGHTZERO_VERSION}",
        environment=environment,
        settings=settings.settings,
        seed=settings.seed,
        env_steps=settings.env_steps,
        machine={**Machine.describe().to_dict(), "threads": settings.threads},
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        backends=[_results(*run, comparison) for run, comparison in zip(runs, compared, strict=True)],
    )


def _order(settings: TrainingSettings, name: str, folder: Path) -> Order:
    config = Path(settings.config)
    return Order(
        config=str(config.absolute()) if config.is_file() else settings.config,
        settings=settings.settings,
        backend=name,
        validates=settings.validates,
        env_steps=settings.env_steps,
        seed=settings.seed,
        threads=settings.threads,
        folder=str(folder.absolute()),
    )


def _run(order: Order, progress: Progress, worker: str) -> Summary:
    """Run an order to its end; whatever ends this one ends the worker too."""
    folder = Path(order.folder)
    path = folder / "order.json"
    with whole_or_absent(path) as beside:
        beside.write_bytes(msgspec.json.encode(order))
    # Hash order must not differ between the runs.
    environment = {**os.environ, "PYTHONHASHSEED": str(order.seed), "OMP_NUM_THREADS": str(order.threads)}
    command = [sys.executable, "-W", "ignore", "-m", worker, str(path)]
    with (
        open(folder / LOG, "a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                progress(order.backend, json.loads(line))
            process.wait()
        finally:
            process.kill()
    if process.returncode:
        raise TrainingError(_fault(order.backend, process.returncode, tail(folder / LOG)))
    return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)


def _fault(name: str, status: int, log: str) -> str:
    how = f"with signal {-status}" if status < 0 else f"with status {status}"
    last = log.rpartition("\n")[2] or "nothing is in its log"
    return f"the run with {name} ended {how}: {last}\nThe end of its log:\n{log}"


def _results(name: str, folder: Path, summary: Summary, comparison: Comparison) -> TrainedBackend:
    notes = [json.loads(line) for line in (folder / NUMBERS).read_text().splitlines()]
    losses = [each["weighted_total_loss"] for each in notes if each["kind"] == "learn"]
    returns = [(each["env_steps"], each["return"]) for each in notes if each["kind"] == "episode"]
    seconds, lookups = summary.search_seconds, max(1, summary.lookups)
    return TrainedBackend(
        name=name,
        ended_with=summary.ended_with,
        first_difference=comparison.first_difference,
        largest_difference=comparison.largest_difference,
        env_steps=summary.env_steps,
        searches=summary.searches,
        learn_steps=len(losses),
        wall_seconds=summary.wall_seconds,
        searches_per_second=summary.searches / seconds if summary.searches else 0.0,
        cache_share=summary.cache_seconds / seconds if summary.searches else 0.0,
        cache_ms_per_search=1e3 * summary.cache_seconds / max(1, summary.searches),
        peak_bytes=summary.peak_bytes,
        cache_bytes=summary.cache_bytes,
        distinct_keys=summary.distinct_keys,
        lookups=summary.lookups,
        hit_rate=(summary.found - summary.stale_hits) / lookups,
        stale_hit_rate=summary.stale_hits / lookups,
        miss_rate=(summary.lookups - summary.found) / lookups,
        stale_hits=summary.stale_hits,
        validation=summary.validation,
        returns=_thinned(returns),
        losses=_thinned(list(enumerate(losses))),
    )


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return points[:: 1 + len(points) // _MOST_POINTS]
