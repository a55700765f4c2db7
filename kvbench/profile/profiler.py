"""Profiling a backend over a replay: where its time goes, call by call. A profiled pass is never a timed one.

Each instrument has its own pass, so that it does not see the others. *Warm*: slots are allocated. *Operations*:
torch.profiler without stacks, with the least disturbance: the table of operations and the trace. *Stacks*: every Python
call is recorded, which makes Python's share look too large: the flame graph. *Memory*, on CUDA: a fresh backend with
the allocator's history on. Contents are filler, as in a timed replay. The library's compiled kernels are no operations
of torch: their time is part of the ranges' own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from msgspec import to_builtins
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function

from kvbench.profile.chrome_trace import Event, fold_stacks, format_stacks, read_chrome_trace
from kvbench.profile.flame_graph import render_flame_graph
from kvbench.profile.ranges import INFERENCES, KINDS, MODEL, Annotate, RangedReplay, annotate_cuda
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.results.profile import ProfiledFile
from kvbench.text import in_spreadsheet
from kvbench.trace.steps import Step
from kvcache import CacheBackend, CacheConfig, make_backend

__all__ = ["BackendProfile", "Instruments", "Profiling"]

# The files of one backend: their kind, name, and the programs that show them.
_FILES = {
    "operations": ("operations.csv", "a spreadsheet, pandas"),
    "trace": ("trace.json.gz", "https://ui.perfetto.dev, chrome://tracing"),
    "stacks": ("stacks.txt", "https://www.speedscope.app, flamegraph.pl; nanoseconds"),
    "flame_graph": ("flame.svg", "a browser, from disk"),
    "memory_snapshot": ("memory.pickle", "https://docs.pytorch.org/memory_viz"),
}
_COLUMNS = ["name", "kind", "calls", "self_cpu_us", "total_cpu_us", "self_device_us", "total_device_us"]
_RANGES = (*KINDS, MODEL, *INFERENCES)
_HISTORY_ENTRIES = 1_000_000  # allocator events of a memory snapshot; older ones are dropped


@dataclass(frozen=True, eq=False)
class BackendProfile:
    """The profile of one backend.

    Attributes:
        operations: a row for each range and each operation of torch, the most expensive first: ``name``, ``kind``
            (``range``, ``operation``; ``kernel`` for what a device runs), ``calls``, and microseconds, on the host and
            on the device (None where there is none): ``self_cpu_us`` without what it called, ``total_cpu_us`` with it,
            ``self_device_us``, ``total_device_us``. Profiling makes them longer.
    """

    backend: str
    files: list[ProfiledFile]
    operations: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """As it is in the index (``kvbench.results.profile``)."""
        ranges = self.operations[self.operations["kind"] == "range"].drop(columns="kind")
        return {
            "backend": self.backend,
            "files": to_builtins(self.files),
            "ranges": ranges.astype(object).where(ranges.notna(), None).to_dict("records"),
        }


@contextmanager
def _cuda_history(path: Path) -> Iterator[None]:
    """Write the CUDA allocator's actions during the block to a file."""
    memory: Any = torch.cuda.memory
    memory._record_memory_history(max_entries=_HISTORY_ENTRIES)
    try:
        yield
        memory._dump_snapshot(str(path))
    finally:
        memory._record_memory_history(enabled=None)


@dataclass(frozen=True)
class Instruments:
    """Instruments for profiling on a device."""

    activities: Sequence[ProfilerActivity]  # that torch.profiler records
    annotate: Annotate
    synchronize: Callable[[], None] = lambda: None  # waits for outstanding work
    memory_history: Callable[[Path], AbstractContextManager[None]] | None = None  # writes the allocator's actions

    @classmethod
    def of(cls, device: torch.device | str) -> Instruments:
        """Those that suit ``device``."""
        if torch.device(device).type == "cuda":
            both = (ProfilerActivity.CPU, ProfilerActivity.CUDA)
            return cls(both, annotate_cuda, torch.cuda.synchronize, _cuda_history)
        return cls((ProfilerActivity.CPU,), record_function)


class Profiling:
    """A replay of one backend under each instrument, which writes to a folder of the backend's own.

    Args:
        name: of the backend, from ``kvcache.BACKENDS``.
        folder: of the whole profile.
        instruments: None takes those that suit the device.
        make: builds a backend from its name and a configuration.
    """

    def __init__(
        self,
        name: str,
        steps: Collection[Step],
        config: CacheConfig,
        folder: Path,
        instruments: Instruments | None = None,
        make: Callable[[str, CacheConfig], CacheBackend] = make_backend,
    ) -> None:
        self._name, self._steps, self._config = name, steps, config
        self._instruments, self._make = instruments or Instruments.of(config.device), make
        self._latents = Latents(config.geometry.embed_dim, config.device)
        self._shift = Contents(config.geometry).position_shift(config.device, config.dtype)
        self._folder, self._place = folder, folder / name.replace(":", "-")

    def run(self, progress: Callable[[str], None] = lambda instrument: None) -> BackendProfile:
        """Run all passes; ``progress`` is called before each with its name.

        Raises ValueError for an unknown backend, and OSError where a file cannot be written.
        """
        # torch's tracing library prints whenever it starts and stops; it reads this when it first prints.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        replay = self._fresh()
        self._place.mkdir(parents=True)
        progress("warm up")
        self._run(replay)
        progress("operations")
        operations = self._operations(replay)
        progress("stacks")
        self._stacks(replay)
        if self._instruments.memory_history is not None:
            progress("memory")
            with self._instruments.memory_history(self._path("memory_snapshot")):
                self._run(self._fresh())
        return BackendProfile(self._name, self._written(), operations)

    def _fresh(self) -> RangedReplay:
        backend = self._make(self._name, self._config)
        backend.position_shift = self._shift
        return RangedReplay(backend, self._instruments.annotate)

    def _run(self, replay: RangedReplay) -> None:
        replay.backend.clear_all()
        for step in self._steps:
            replay.run_step(step, self._latents.inputs(step))
        self._instruments.synchronize()

    def _profiled(self, replay: RangedReplay, trace: Path, with_stack: bool = False) -> tuple[Any, list[Event]]:
        """Replay under torch.profiler, which is returned, and write its trace, whose events are returned."""
        with torch.profiler.profile(activities=self._instruments.activities, with_stack=with_stack) as profiler:
            self._run(replay)
        profiler.export_chrome_trace(str(trace))
        try:
            return profiler, read_chrome_trace(trace)
        except (ValueError, FileNotFoundError):  # the profiler does not say what it could not write
            fault = "torch's profiler could not write its trace, for which there may be no space left on device"
            raise OSError(errno.EIO, fault, str(trace)) from None

    def _operations(self, replay: RangedReplay) -> pd.DataFrame:
        profiler, _ = self._profiled(replay, self._path("trace"))
        operations = operation_table(profiler.key_averages(), ProfilerActivity.CUDA in self._instruments.activities)
        operations.apply(lambda each: each.map(in_spreadsheet)).to_csv(self._path("operations"), index=False)
        return operations

    def _stacks(self, replay: RangedReplay) -> None:
        traced = self._place / "with-stacks.json"
        _, events = self._profiled(replay, traced, with_stack=True)
        stacks = fold_stacks(events, KINDS)
        traced.unlink()  # ten times the kept trace's size, and its times are worse
        self._path("stacks").write_text(format_stacks(stacks))
        searches = len({step.search for step in self._steps})
        note = (
            f"{searches} {'search' if searches == 1 else 'searches'} of {self._config.geometry.name}, "
            f"{sum(stacks.values()) / 1e6:,.1f} ms of host time; "
            f"tracing every Python call makes Python's share look larger than it is"
        )
        graph = render_flame_graph(stacks, f"{self._name}: where a replay's time goes", note)
        self._path("flame_graph").write_text(graph, encoding="utf-8")

    def _path(self, kind: str) -> Path:
        return self._place / _FILES[kind][0]

    def _written(self) -> list[ProfiledFile]:
        files = []
        for kind, (_, opens_with) in _FILES.items():
            path = self._path(kind)
            if path.exists():
                relative, size = path.relative_to(self._folder).as_posix(), path.stat().st_size
                files.append(ProfiledFile(kind=kind, path=relative, bytes=size, opens_with=opens_with))
        return files


def operation_table(averages: Any, has_device: bool) -> pd.DataFrame:
    """torch.profiler's ``key_averages()``, of the host alone or of a device too, as ``BackendProfile.operations``."""
    rows = []
    for each in averages:
        on_host = each.device_type == DeviceType.CPU
        # A range's copy on the device's time line would count its kernels twice; the profiler's own calls are no part
        # of the replay.
        if each.key.startswith("profiler::") or (each.key in _RANGES and not on_host):
            continue
        kind = "range" if each.key in _RANGES else "operation" if on_host else "kernel"
        device = (each.self_device_time_total, each.device_time_total) if has_device else (None, None)
        rows.append((each.key, kind, each.count, each.self_cpu_time_total, each.cpu_time_total, *device))
    frame = pd.DataFrame(rows, columns=_COLUMNS).astype({"self_device_us": float, "total_device_us": float})
    most = "self_device_us" if has_device else "self_cpu_us"
    return frame.sort_values([most, "self_cpu_us"], ascending=False, kind="stable", ignore_index=True)
