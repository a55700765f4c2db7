"""Profiling a backend over a replay: where its time goes, call by call. What is profiled is never what is timed.

Each instrument has a pass of its own, so that none is in another's picture. *Warm*: slots get allocated. *Operations*:
torch.profiler without stacks, as undisturbed as it gets: the table of operations and the trace. *Stacks*: with every
Python call, which makes Python's share look larger than it is: the flame graph. *Memory*, on CUDA: a fresh backend with
the allocator's history on. Contents are filler, as in a timed replay. The library's compiled kernels are no operations
of torch: their time is the ranges' own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity

from kvbench.errors import KvbenchError
from kvbench.profile.chrome_trace import fold_stacks, format_stacks, read_chrome_trace
from kvbench.profile.flame_graph import render_flame_graph
from kvbench.profile.ranges import INFERENCES, KINDS, MODEL, Annotate, Ranges, make_annotate
from kvbench.replay.content import Contents
from kvbench.replay.drive import FillerContent, Latents
from kvbench.trace.steps import Step
from kvcache import CacheBackend, CacheConfig, make_backend

__all__ = [
    "INDEX",
    "INDEX_FORMAT",
    "INDEX_SCHEMA_VERSION",
    "BackendProfile",
    "Instruments",
    "ProfileError",
    "ProfileFile",
    "profile_backend",
    "read_profile_index",
]

INDEX = "profile.json"  # in the folder of a profile
INDEX_FORMAT = "kvcache-profile"
INDEX_SCHEMA_VERSION = 1

OPERATION_COLUMNS = (
    "name",
    "kind",
    "calls",
    "self_cpu_us",
    "total_cpu_us",
    "self_device_us",
    "total_device_us",
)
_RANGES = (*KINDS, MODEL, *INFERENCES)
_HISTORY_ENTRIES = 1_000_000  # allocator events of a memory snapshot; older ones are dropped

Progress = Callable[[str], None]  # what is going on


class ProfileError(KvbenchError):
    """A profile that cannot be used: which file, and what is wrong with it."""


@dataclass(frozen=True)
class ProfileFile:
    """One file of a profile.

    Attributes:
        kind: ``operations``, ``trace``, ``stacks``, ``flame_graph`` or ``memory_snapshot``.
        path: relative to the profile's folder, with forward slashes.
        bytes: of the file.
        opens_with: what shows it.
    """

    kind: str
    path: str
    bytes: int
    opens_with: str


@dataclass(frozen=True)
class BackendProfile:
    """What was found out about one backend.

    Attributes:
        backend: its name.
        files: what was written.
        operations: a row for each range and each operation of torch, the most expensive first: ``name``, ``kind``
            (``range``, ``operation``; ``kernel`` for what a device runs), ``calls``, and microseconds, on the host and
            on the device (None where there is none): ``self_cpu_us`` without what it called, ``total_cpu_us`` with it,
            ``self_device_us``, ``total_device_us``. Being profiled makes them longer.
    """

    backend: str
    files: list[ProfileFile]
    operations: pd.DataFrame = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As the index has it."""
        ranges = self.operations[self.operations["kind"] == "range"]
        totals = ranges.astype(object).where(ranges.notna(), None)
        return {
            "backend": self.backend,
            "files": [asdict(each) for each in self.files],
            "ranges": totals.drop(columns="kind").to_dict("records"),
        }


@contextmanager
def _cuda_history(path: Path) -> Iterator[None]:
    """Writes what the CUDA allocator did in the block."""
    memory: Any = torch.cuda.memory
    memory._record_memory_history(max_entries=_HISTORY_ENTRIES)
    try:
        yield
        memory._dump_snapshot(str(path))
    finally:
        memory._record_memory_history(enabled=None)


@dataclass(frozen=True)
class Instruments:
    """What a device is profiled with.

    Attributes:
        activities: that torch.profiler records.
        annotate: opens a range.
        synchronize: waits for outstanding work.
        memory_history: a context that writes a file of the allocator's doings; None where there is no such allocator.
    """

    activities: Sequence[ProfilerActivity]
    annotate: Annotate
    synchronize: Callable[[], None] = lambda: None
    memory_history: Callable[[Path], AbstractContextManager[None]] | None = None

    @classmethod
    def of(cls, device: torch.device | str) -> Instruments:
        """Those that suit ``device``."""
        annotate = make_annotate(device)
        if torch.device(device).type == "cuda":
            both = (ProfilerActivity.CPU, ProfilerActivity.CUDA)
            return cls(both, annotate, torch.cuda.synchronize, _cuda_history)
        return cls((ProfilerActivity.CPU,), annotate)


def profile_backend(
    name: str,
    steps: Sequence[Step],
    config: CacheConfig,
    folder: Path,
    *,
    instruments: Instruments | None = None,
    make: Callable[[str, CacheConfig], CacheBackend] = make_backend,
    progress: Progress = lambda what: None,
) -> BackendProfile:
    """Replay the steps under each instrument and write what they saw to a folder of the backend's own.

    Args:
        name: of the backend, from ``kvcache.registry.BACKENDS``.
        steps: of the trace.
        config: what the backend is built for.
        folder: of the whole profile.
        instruments: None takes those that suit the device.
        make: builds a backend from its name and a configuration.
        progress: told of each pass before it runs.

    Raises:
        ValueError: an unknown backend.
        OSError: a file cannot be written.
    """
    return _Profiling(name, steps, config, folder, instruments or Instruments.of(config.device), make).run(progress)


class _Profiling:
    """The passes over one backend."""

    def __init__(
        self,
        name: str,
        steps: Sequence[Step],
        config: CacheConfig,
        folder: Path,
        instruments: Instruments,
        make: Callable[[str, CacheConfig], CacheBackend],
    ) -> None:
        self._name, self._steps, self._config = name, steps, config
        self._instruments, self._make = instruments, make
        self._ranges = Ranges(instruments.annotate)
        self._latents = Latents(config.geometry.embed_dim, config.device)
        self._shift = Contents(config.geometry).position_shift(config.device, config.dtype)
        self._folder, self._place = folder, folder / name.replace(":", "-")
        self._files: list[ProfileFile] = []

    def run(self, progress: Progress) -> BackendProfile:
        # torch's tracing library remarks on standard error whenever it starts and stops; read when it first logs.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        backend, content = self._fresh()
        self._place.mkdir(parents=True)
        progress("warm up")
        self._replay(backend, content)
        progress("operations")
        operations = self._operations(backend, content)
        progress("stacks")
        self._stacks(backend, content)
        if self._instruments.memory_history is not None:
            progress("memory")
            self._memory(self._instruments.memory_history)
        return BackendProfile(self._name, self._files, operations)

    def _fresh(self) -> tuple[CacheBackend, FillerContent]:
        backend = self._make(self._name, self._config)
        backend.position_shift = self._shift
        return backend, FillerContent(backend)

    def _replay(self, backend: CacheBackend, content: FillerContent) -> None:
        backend.clear_all()
        for step in self._steps:
            self._ranges.run_step(backend, step, self._latents.inputs(step), content)
        self._instruments.synchronize()

    def _operations(self, backend: CacheBackend, content: FillerContent) -> pd.DataFrame:
        path = self._place / "trace.json.gz"
        with torch.profiler.profile(activities=self._instruments.activities) as profiler:
            self._replay(backend, content)
        profiler.export_chrome_trace(str(path))
        has_device = ProfilerActivity.CUDA in self._instruments.activities
        operations = operation_table(profiler.key_averages(), has_device)
        table = self._place / "operations.csv"
        operations.to_csv(table, index=False)
        self._wrote("operations", table, "a spreadsheet, pandas")
        self._wrote("trace", path, "https://ui.perfetto.dev, chrome://tracing")
        return operations

    def _stacks(self, backend: CacheBackend, content: FillerContent) -> None:
        traced = self._place / "with-stacks.json"
        with torch.profiler.profile(activities=self._instruments.activities, with_stack=True) as profiler:
            self._replay(backend, content)
        profiler.export_chrome_trace(str(traced))
        stacks = fold_stacks(read_chrome_trace(traced), KINDS)
        traced.unlink()  # ten times the size of the trace that is kept, and its times are worse
        folded = self._place / "stacks.txt"
        folded.write_text(format_stacks(stacks))
        self._wrote("stacks", folded, "https://www.speedscope.app, flamegraph.pl; nanoseconds")
        graph = self._place / "flame.svg"
        searches = len({step.search for step in self._steps})
        note = (
            f"{searches} {'search' if searches == 1 else 'searches'} of {self._config.geometry.name}, "
            f"{sum(stacks.values()) / 1e6:,.1f} ms of host time; "
            f"tracing every Python call makes Python's share look larger than it is"
        )
        graph.write_text(render_flame_graph(stacks, f"{self._name}: where a replay's time goes", note))
        self._wrote("flame_graph", graph, "a browser, from disk")

    def _memory(self, history: Callable[[Path], AbstractContextManager[None]]) -> None:
        path = self._place / "memory.pickle"
        with history(path):
            self._replay(*self._fresh())
        self._wrote("memory_snapshot", path, "https://docs.pytorch.org/memory_viz")

    def _wrote(self, kind: str, path: Path, opens_with: str) -> None:
        relative = path.relative_to(self._folder).as_posix()
        self._files.append(ProfileFile(kind, relative, path.stat().st_size, opens_with))


def operation_table(averages: Any, has_device: bool) -> pd.DataFrame:
    """torch.profiler's ``key_averages()`` as ``BackendProfile.operations`` has them.

    Args:
        averages: of one pass.
        has_device: whether a device was profiled besides the host.
    """
    rows = []
    for each in averages:
        on_host = each.device_type == DeviceType.CPU
        # A range's shadow on the device's time line would count the kernels in it once more; and what records ranges
        # is no part of the replay.
        if each.key.startswith("profiler::") or (each.key in _RANGES and not on_host):
            continue
        kind = "range" if each.key in _RANGES else "operation" if on_host else "kernel"
        device = (each.self_device_time_total, each.device_time_total) if has_device else (None, None)
        rows.append((each.key, kind, each.count, each.self_cpu_time_total, each.cpu_time_total, *device))
    frame = pd.DataFrame(rows, columns=list(OPERATION_COLUMNS)).astype(
        {"self_device_us": float, "total_device_us": float}
    )
    most = "self_device_us" if has_device else "self_cpu_us"
    return frame.sort_values([most, "self_cpu_us"], ascending=False, kind="stable", ignore_index=True)


def read_profile_index(folder: str | Path) -> dict[str, Any]:
    """The index of a profile: which files there are, and what they are about.

    Returns:
        ``format``, ``schema_version``; ``created`` (ISO 8601, UTC); ``command`` (arguments of kvcache); ``trace`` (as
        in a replay's JSON: ``file``, ``sha256``, ``searches``, ``geometry``, ...); ``settings`` (``device``,
        ``dtype``, ``eviction``, ``capacity``, ``searches``, ``threads``); ``machine`` (processor, versions); and
        ``profiles``, one of each backend: ``backend``, ``files`` (``ProfileFile``'s attributes, all of them there) and
        ``ranges`` (the rows of ``BackendProfile.operations`` of that kind).

    Raises:
        ProfileError: there is no index, it is damaged or of another version, a field that readers rely on is missing
            or of another type, or a file that it names is missing or lies outside of the folder.
    """
    folder = Path(folder)
    path = folder / INDEX
    try:
        index = json.loads(path.read_text())
        version = index["schema_version"]
        version = version if index["format"] == INDEX_FORMAT else None
    except FileNotFoundError:
        raise ProfileError(f"{path}: no such file: is this a folder that 'kvbench profile' wrote?") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProfileError(f"{path}: not the index of a profile: {error!r}") from None
    if version != INDEX_SCHEMA_VERSION:
        raise ProfileError(f"{path}: schema version {version!r}, but this kvcache reads {INDEX_SCHEMA_VERSION}")
    for file in _checked_files(path, index):
        if not (folder / file).resolve().is_relative_to(folder.resolve()):
            raise ProfileError(f"{path}: names a file outside of the folder: {file!r}")
        if not (folder / file).is_file():
            raise ProfileError(f"{path}: its file {file!r} is missing")
    content: dict[str, Any] = index
    return content


def _checked_files(path: Path, index: dict[str, Any]) -> list[str]:
    """The files that an index names; everything that readers rely on is there, and of its type."""
    _check(path, index, "", {"command": list, "trace": dict, "profiles": list})
    _check(path, index["trace"], "trace.", {"file": str})
    found = []
    for number, profile in enumerate(index["profiles"]):
        _check(path, profile, f"profiles[{number}].", {"backend": str, "files": list})
        for place, file in enumerate(profile["files"]):
            where = f"profiles[{number}].files[{place}]."
            _check(path, file, where, {"kind": str, "path": str, "opens_with": str, "bytes": int})
            if "\0" in file["path"]:
                raise ProfileError(f"{path}: {where}path is no path: {file['path']!r}")
            found.append(file["path"])
    return found


def _check(path: Path, value: Any, where: str, kinds: dict[str, type]) -> None:
    if not isinstance(value, dict):
        raise ProfileError(f"{path}: {where.removesuffix('.')} is not an object")
    for name, kind in kinds.items():
        if not isinstance(value.get(name), kind) or isinstance(value[name], bool):
            raise ProfileError(f"{path}: {where}{name} is {'not of its type' if name in value else 'missing'}")
