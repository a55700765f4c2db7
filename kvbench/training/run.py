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
from kvbench.measure.machine import Machine
from kvbench.record.lightzero_config import LIGHTZERO_VERSION, load_config, require_lightzero
from kvbench.record.lightzero_log import tail
from kvbench.results.training import TrainedBackend, TrainingResults
from kvbench.training.compare import compare
from kvbench.training.worker import LOG, NUMBERS, SUMMARY, Order, Summary

__all__ = ["TrainingError", "TrainingSettings", "train"]

_MOST_POINTS = 1000  # of a curve


class TrainingError(KvbenchError):
    """A run that failed, with the end of its log."""


@dataclass(frozen=True)
class TrainingSettings:
    """What to train; see ``Order``."""

    config: str
    settings: dict[str, Any]
    backends: Sequence[str]
    env_steps: int
    seed: int
    threads: int


def train(
    settings: TrainingSettings,
    folder: Path,
    progress: Callable[[str, dict[str, Any]], None] = lambda name, counts: None,
) -> TrainingResults:
    """Train with each backend, and compare every number with the first one's.

    Args:
        settings: of all runs.
        folder: for the files of the runs, each in a folder of its own.
        progress: called with a backend's name and its counts so far.

    Raises:
        ConfigError: LightZero is not installed, or the configuration is bad.
        TrainingError: a run failed.
    """
    require_lightzero()
    environment = load_config(settings.config).changed(settings.settings).name
    runs = []
    for name in settings.backends:
        own = folder / name.replace(":", "-")
        own.mkdir(parents=True)
        runs.append((name, own, _run(settings, name, own, progress)))
    _, first, _ = runs[0]
    return TrainingResults(
        library=f"LightZero {LIGHTZERO_VERSION}",
        environment=environment,
        settings=settings.settings,
        seed=settings.seed,
        env_steps=settings.env_steps,
        machine=Machine.describe().to_dict(),
        packages={name: importlib.metadata.version(name) for name in ("torch", "numpy", "lightzero")},
        backends=[_results(name, own, summary, first) for name, own, summary in runs],
    )


def _run(
    settings: TrainingSettings, name: str, folder: Path, progress: Callable[[str, dict[str, Any]], None]
) -> Summary:
    config = str(Path(settings.config).absolute()) if Path(settings.config).is_file() else settings.config
    order = Order(
        config=config,
        settings=settings.settings,
        backend=name,
        env_steps=settings.env_steps,
        seed=settings.seed,
        threads=settings.threads,
        folder=str(folder.absolute()),
    )
    path = folder / "order.json"
    path.write_bytes(msgspec.json.encode(order))
    # Hash order must not differ between the runs.
    environment = {**os.environ, "PYTHONHASHSEED": str(settings.seed), "OMP_NUM_THREADS": str(settings.threads)}
    command = [sys.executable, "-W", "ignore", "-m", "kvbench.training.worker", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            progress(name, json.loads(line))
        _, errors = process.communicate()
    if process.returncode:
        last = errors.strip().splitlines()[-1:] or [f"it ended with {process.returncode}"]
        raise TrainingError(f"the run with {name} failed: {last[0]}\nThe end of its log:\n{tail(folder / LOG)}")
    return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=Summary)


def _results(name: str, folder: Path, summary: Summary, first: Path) -> TrainedBackend:
    numbers = folder / NUMBERS
    comparison = compare(first / NUMBERS, numbers)
    learned = [each for each in _read(numbers) if each["kind"] == "learn"]
    searches = max(1, summary.searches)
    return TrainedBackend(
        name=name,
        first_difference=comparison.first_difference,
        largest_difference=comparison.largest_difference,
        env_steps=summary.env_steps,
        searches=summary.searches,
        learn_steps=len(learned),
        wall_seconds=summary.wall_seconds,
        searches_per_second=summary.searches / summary.search_seconds,
        cache_share=summary.cache_seconds / summary.search_seconds,
        cache_ms_per_search=1e3 * summary.cache_seconds / searches,
        peak_bytes=summary.peak_bytes,
        cache_bytes=summary.cache_bytes,
        distinct_keys=summary.distinct_keys,
        hit_rate=(summary.hits - (summary.stale_hits or 0)) / max(1, summary.lookups),
        miss_rate=(summary.lookups - summary.hits) / max(1, summary.lookups),
        stale_hits=summary.stale_hits,
        returns=_thinned([(each["env_steps"], each["return"]) for each in _read(numbers) if each["kind"] == "episode"]),
        losses=_thinned([(step, each["weighted_total_loss"]) for step, each in enumerate(learned)]),
    )


def _read(numbers: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in numbers.read_text().splitlines()]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return points[:: 1 + len(points) // _MOST_POINTS]
