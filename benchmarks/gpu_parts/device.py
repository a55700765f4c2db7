"""The device that parts run on: a card, or a CPU that stands in for one, so that each part's code has run."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from kvbench.measure.stopwatch import CudaStopwatch
from kvbench.results.decode import Scalars
from kvbench.results.gpu import GpuRow
from kvcache import GEOMETRIES, Geometry

__all__ = ["Counted", "Setting", "card", "counted", "make_stopwatch", "profiled", "row"]

_QUICK = ("cartpole", "pong")


@dataclass(frozen=True)
class Setting:
    """What a part runs on.

    Attributes:
        device: "cuda"; or "cpu", which stands in for it.
        quick: whether a few of the shapes are enough.
    """

    device: str
    quick: bool = False

    @property
    def geometries(self) -> list[Geometry]:
        names = _QUICK if self.quick else tuple(GEOMETRIES)
        return [GEOMETRIES[name] for name in names]

    @property
    def dtypes(self) -> list[torch.dtype]:
        return [torch.float32, torch.bfloat16] if self.quick else [torch.float32, torch.float16, torch.bfloat16]

    def small(self, geometry: Geometry) -> Geometry:
        """The geometry with few simulations, where that is enough."""
        return replace(geometry, num_simulations=4) if self.quick else geometry


def row(name: str, value: float | None = None, unit: str = "", **more: Any) -> GpuRow:
    """A row of a part, whose name the caller of the part fills in."""
    return GpuRow(part="", name=name, value=value, unit=unit, **more)


class _HostEvent:
    """A CUDA event's stand-in, by the host's clock."""

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: _HostEvent) -> float:
        """Milliseconds until ``other``."""
        return 1e3 * (other.at - self.at)


def make_stopwatch(setting: Setting) -> CudaStopwatch:
    """One that has both clocks; on a CPU the device's is the host's."""
    if setting.device == "cuda":
        return CudaStopwatch()
    return CudaStopwatch(synchronize=lambda: None, event=_HostEvent)


@dataclass(frozen=True)
class Counted:
    """What a profile says of some calls, by each."""

    launches: float
    to_host: float
    to_device: float
    synchronisations: float


def counted(names: Iterable[str], times: int = 1) -> Counted:
    """Of the events of ``times`` calls, by their names."""
    names = list(names)

    def each(*parts: str) -> float:
        return sum(any(part in name for part in parts) for name in names) / times

    # A graph is one launch. Triton launches by the driver's cuLaunchKernel, torch by the runtime's cudaLaunchKernel.
    return Counted(
        launches=each("LaunchKernel", "GraphLaunch"),
        to_host=each("Memcpy DtoH"),
        to_device=each("Memcpy HtoD"),
        synchronisations=each("StreamSynchronize", "DeviceSynchronize", "EventSynchronize"),
    )


def profiled(setting: Setting, call: Callable[[], object], times: int) -> Counted:
    """What ``call`` does on the device, by torch's profiler; what an empty profile has is taken off."""
    nothing, something = (counted(_names(setting, each)) for each in ([], [call] * times))
    pairs = {name: (getattr(something, name) - getattr(nothing, name)) / times for name in vars(nothing)}
    return Counted(**pairs)


def _names(setting: Setting, calls: Iterable[Callable[[], object]]) -> Iterator[str]:
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU, activity.CUDA] if setting.device == "cuda" else [activity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        for call in calls:
            call()
    for event in profile.events() or ():
        yield event.name


def card() -> Scalars:
    """The card's name and what it needs to be told from others."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
    }


def _driver() -> str | None:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said[0] if said else None
