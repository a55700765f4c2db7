"""Parts about the cache alone: contents, times of a step, and bandwidth of the kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch

from gpu_parts.device import Setting, make_stopwatch, row
from gpu_parts.driving import FILLS, Driver, grown, simulated
from kvbench.results.gpu import GpuRow
from kvcache import Geometry
from kvcache.kernels import Correction, make_kernels

__all__ = ["bandwidth", "contents", "steps"]

_NEW = ("new:slab", "new:paged", "new:paged-resident")
_SIMULATIONS = 4  # below each root whose contents are compared
_ROUNDINGS = 8  # of a sum of corrections, in the contents' dtype: pages make it once, legacy at each slide
_COPY_SHARE = 0.8


def contents(setting: Setting) -> Iterator[GpuRow]:
    """Contexts on the device against legacy's on the CPU, by geometry, dtype and fill."""
    for geometry in setting.geometries:
        for dtype in setting.dtypes:
            judge = Driver("legacy", geometry, "cpu", dtype)
            drivers = [Driver(name, geometry, setting.device, dtype) for name in _NEW]
            for fill, requests, roots in grown([judge, *drivers], geometry):
                off, largest = dict.fromkeys(_NEW, 0.0), 0.0
                for _ in simulated([judge, *drivers], geometry, requests, roots, _SIMULATIONS):
                    wanted = _contexts(judge)
                    largest = max(largest, *(float(each.abs().max()) for each in wanted))
                    for each in drivers:
                        pairs = zip(_contexts(each), wanted, strict=True)
                        off[each.name] = max(off[each.name], *(float((a - b).abs().max()) for a, b in pairs))
                for each in [judge, *drivers]:
                    each.backend.clear_recur_cache()
                slides = geometry.positions == "absolute" and fill not in ("start", "middle")
                allowed = _ROUNDINGS * torch.finfo(dtype).eps * largest if slides else 0.0
                for name, apart in off.items():
                    label = f"{geometry.name}, {_short(dtype)}, {fill}, {name}"
                    yield row(label, apart, "apart", wanted=f"at most {allowed:.2g}", holds=apart <= allowed)


def _contexts(driver: Driver) -> list[torch.Tensor]:
    """The rows' contexts as the batch has them, before what was appended, on the host in float64."""
    backend = driver.backend
    sizes = backend.keys_values_wm_size_list
    contexts = (backend.row_context(number).block[..., :size, :] for number, size in enumerate(sizes))
    return [each.to("cpu", torch.float64) for each in contexts]


def steps(setting: Setting) -> Iterator[GpuRow]:
    """A recurrent step's calls of the cache, and its share of the clear: legacy's time over each new storage's.

    By both clocks.
    """
    simulations = 4 if setting.quick else 25
    for geometry in setting.geometries:
        stopwatch = make_stopwatch(setting)
        drivers = [Driver(name, geometry, setting.device, torch.float32, stopwatch) for name in ("legacy-0.2.0", *_NEW)]
        for fill, requests, roots in grown(drivers, geometry, FILLS):
            times: dict[str, list[list[float]]] = {"host": [], "device": []}
            for _ in simulated(drivers, geometry, requests, roots, simulations):
                times["host"].append([each.host_ns for each in drivers])
                times["device"].append([each.device_ns for each in drivers])
            for each in drivers:
                each.clear()
            for clock, found in times.items():
                clears = np.array([getattr(each, f"{clock}_ns") for each in drivers])
                taken = np.array(found[1:]) + clears / simulations  # the first one allocates
                label = f"{geometry.name}, {fill}, {clock} clock"
                yield row(f"{label}, legacy-0.2.0", float(np.median(taken[:, 0])) / 1e3, "us")
                for column, name in enumerate(_NEW, start=1):
                    yield row(f"{label}, {name}", float(np.median(taken[:, 0] / taken[:, column])), "times faster")


def bandwidth(setting: Setting) -> Iterator[GpuRow]:
    """Gather and scatter of a full batch against a copy of as many bytes, by the device's clock."""
    for geometry in setting.geometries:
        for dtype in setting.dtypes:
            batch = torch.zeros(
                2 * geometry.num_layers, geometry.env_num, geometry.num_heads, geometry.context_length,
                geometry.head_dim, device=setting.device, dtype=dtype,
            )  # fmt: skip
            calls = _moves(geometry, batch)
            copy = batch.clone()
            gigabytes = {"copy": _rate(setting, batch, lambda to=copy, of=batch: to.copy_(of))}
            gigabytes |= {name: _rate(setting, batch, call) for name, call in calls.items()}
            for name, rate in gigabytes.items():
                yield row(f"{geometry.name}, {_short(dtype)}, {name}", rate, "GB/s")
            share = gigabytes["gather"] / gigabytes["copy"]
            label = f"{geometry.name}, {_short(dtype)}, share of the gather"
            wanted = f"at least {_COPY_SHARE}"
            yield row(label, share, "of a copy", wanted=wanted, holds=share >= _COPY_SHARE)


def _moves(geometry: Geometry, batch: torch.Tensor) -> dict[str, Callable[[], None]]:
    """A gather, a corrected one and a scatter of all tokens of a batch."""
    place = {"device": batch.device}
    width = batch.shape[0] * batch.shape[2] * batch.shape[4]
    pool = torch.zeros(4 * geometry.context_length * geometry.env_num, width, dtype=batch.dtype, **place)
    shape = geometry.context_length, geometry.env_num
    chosen = torch.randperm(len(pool) - 2, generator=torch.Generator().manual_seed(0))[: shape[0] * shape[1]] + 2
    index = chosen.view(shape).to(**place)
    shifts = torch.zeros(geometry.context_length, width, dtype=batch.dtype, **place)
    by = torch.arange(geometry.context_length)[:, None].contiguous().to(**place)
    kernels = make_kernels(batch.device)
    return {
        "gather": lambda: kernels.gather(pool, index, batch),
        "corrected gather": lambda: kernels.gather(pool, index, batch, 0, Correction(shifts, by)),
        "scatter": lambda: kernels.scatter(pool, index, batch),
    }


def _rate(setting: Setting, moved: torch.Tensor, call: Callable[[], object]) -> float:
    """GB/s read and written."""
    stopwatch, seconds = make_stopwatch(setting), []
    for _ in range(5 if setting.quick else 30):
        _, (_, device) = stopwatch.time(call)
        assert device is not None
        seconds.append(device() / 1e9)
    return 2 * moved.nbytes / median(seconds[2:]) / 1e9


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
