"""The harness's overhead: laps of a backend that does nothing, beside those of one that works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from kvbench.measure.stopwatch import HostStopwatch
from kvbench.replay.drive import OPERATIONS
from kvbench.replay.operations import OPERATION_KINDS, Operation, operation_config, prepare_operation, time_operations
from kvbench.replay.passes import Replay
from kvbench.trace.steps import Step
from kvcache import EMPTY, CacheBackend, CacheConfig, Geometry, KeysValues, make_backend

__all__ = ["EmptyBackend", "gate_laps", "operation_laps", "replay_laps"]

ROWS = 8
_MICROSECOND = 1000.0

Laps = dict[str, tuple[float, float]]  # by operation: median microseconds of the empty backend, and of ``new``


class EmptyBackend(CacheBackend):
    """A backend whose operations do nothing: every row starts empty, and batches have no layers."""

    name = "empty"

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.keys_values_wm = KeysValues.from_layers([])
        self._keys = [0] * config.geometry.env_num
        self._sizes = [EMPTY] * config.geometry.env_num

    def hash_states(self, latents: Any) -> Sequence[int]:
        return self._keys

    def lookup(self, envs: Any, keys: Any, scope: Any) -> list[int]:
        return self._sizes

    def supply(self, row: int, keys_values: KeysValues) -> None:
        pass

    def assemble(self) -> list[int]:
        return self._sizes

    def store(self, envs: Any, keys: Any, scope: Any, priorities: Any = None) -> None:
        pass

    def clear_recur_cache(self) -> None:
        pass

    def clear_init_caches(self) -> None:
        pass

    def clear_all(self) -> None:
        pass

    @property
    def batch_bytes(self) -> int:
        return 0


def replay_laps(steps: Sequence[Step], geometry: Geometry, repetitions: int) -> Laps:
    """Of the timed pass of a replay, both backends in lock-step."""

    def make(name: str, config: CacheConfig) -> CacheBackend:
        return EmptyBackend(config) if name == EmptyBackend.name else make_backend(name, config)

    replay = Replay(steps, CacheConfig(geometry), [EmptyBackend.name, "new"], make=make)
    replay.time(repetitions)
    host = {name: report.times.host for name, report in replay.reports.items() if report.times is not None}
    return {each: (_us(host[EmptyBackend.name][each]), _us(host["new"][each])) for each in OPERATIONS}


def operation_laps(geometry: Geometry, repetitions: int) -> Laps:
    """Of ``time_operations``, call by call in alternating order."""
    laps = {}
    for kind in OPERATION_KINDS:
        config = operation_config(geometry, ROWS)
        operations = {
            EmptyBackend.name: Operation(kind, EmptyBackend(config), _nothing, _nothing, _nothing),
            "new": prepare_operation(kind, make_backend("new", config)),
        }
        times = time_operations(operations, HostStopwatch(), repetitions)
        laps[kind] = (_us(times[EmptyBackend.name].host), _us(times["new"].host))
    return laps


# Run as a gate is: by pytest-benchmark, in a process of its own.
_EMPTY_GATES = """
import pytest
from test_gate_operations import _call
from test_gate_replays import CLOCK


def nothing():
    pass


def test_operation(benchmark):
    benchmark.pedantic(_call, setup=lambda: ((nothing,), {}), rounds=1000)


@pytest.mark.benchmark(timer=CLOCK)
def test_call_of_a_replay(benchmark):
    benchmark.pedantic(lambda: CLOCK.meter("store", nothing), rounds=1000)
"""


def gate_laps() -> dict[str, float]:
    """Of the gate's benchmarks: median microseconds of a call that does nothing, by kind of call."""
    gates = Path(__file__).parent / "gates"
    with tempfile.TemporaryDirectory() as folder:
        file, numbers = Path(folder) / "test_empty.py", Path(folder) / "numbers.json"
        file.write_text(f"import sys\n\nsys.path[:0] = {[str(gates), str(gates.parent)]!r}\n{_EMPTY_GATES}")
        subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", f"--rootdir={folder}", "-c", "/dev/null",
                "-p", "no:cacheprovider", f"--benchmark-json={numbers}", "--benchmark-disable-gc", str(file),
            ],
            check=True, capture_output=True,
            # A pytest within a worker of pytest-xdist would leave benchmarks out.
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        )  # fmt: skip
        measured = json.loads(numbers.read_text())["benchmarks"]
    return {each["name"].removeprefix("test_"): each["stats"]["median"] * 1e6 for each in measured}


def _us(nanoseconds: Sequence[int]) -> float:
    return median(nanoseconds) / _MICROSECOND


def _nothing() -> None:
    """The operation that is timed."""
