"""Parts about the world model: transfers and launches of a simulation, and whole searches with their split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from gpu_parts.device import Counted, Setting, make_stopwatch, profiled, row
from kvbench.results.gpu import GpuRow
from kvcache import Geometry, ObservedCache
from kvcache.world_model import Played, SearchConfig, WorldModel, WorldModelConfig, play

__all__ = ["compiled", "counts", "searches", "sliding"]

_CACHES: dict[str, dict[str, Any]] = {
    "legacy": {},
    "new:paged": {"use_new_cache_manager": True, "cache_storage": "paged"},
    "new:paged-resident": {
        "use_new_cache_manager": True,
        "cache_storage": "paged",
        "cache_resident_batch": True,
    },
}
_STEPS: dict[str, dict[str, Any]] = {"plain": {}, "cuda_graph": {"cuda_graph": True}}
_COMPILED: dict[str, dict[str, Any]] = {
    "compile": {"compile": True},
    "compile and cuda_graph": {"compile": True, "cuda_graph": True},
}
# Tensors sent for a simulation: actions and positions; where tokens are gathered from and scattered to; and a resident
# batch's places. tests/cache/world_model/test_devices.py promises the same.
_SENT = {"legacy": 1, "new:paged": 3, "new:paged-resident": 4}
_APART = 2e-3  # of values, where sums are made in another order


def _model(setting: Setting, geometry: Geometry, **options: Any) -> WorldModel:
    return WorldModel(WorldModelConfig(geometry, device=setting.device, **options))


def counts(setting: Setting) -> Iterator[GpuRow]:
    """Transfers, synchronisations and launches of a simulation by the profiler, against what CPU tests promise."""
    for geometry in setting.geometries:
        for cache, options in _CACHES.items():
            for step in _STEPS if cache == "new:paged" else ("plain",):
                label = f"{geometry.name}, {cache}, {step}"
                yield from _counted(setting, label, geometry, {**options, **_STEPS[step]}, _SENT[cache])
    geometry, options = setting.geometries[0], _CACHES["new:paged"]
    for step, more in _COMPILED.items():  # the first geometry is enough: a compilation takes half a minute
        yield from _counted(setting, f"{geometry.name}, new:paged, {step}", geometry, {**options, **more}, 3)


def _counted(setting: Setting, label: str, geometry: Geometry, options: dict[str, Any], sent: int) -> Iterator[GpuRow]:
    """The rows of one model; where it cannot be made or run, one that says why."""
    try:
        found = _profile(setting, _model(setting, geometry, **options))
    except (ValueError, RuntimeError) as error:
        yield _failed(setting, label, error)
        return
    if setting.device != "cuda":
        yield row(label, reason="a CPU has no launches and no transfers to count")
        return
    yield row(f"{label}, launches", found.launches, "a simulation")
    promised = {"to_host": 1, "to_device": sent, "synchronisations": 1}
    for name, wanted in promised.items():
        value = getattr(found, name)
        words = f"{label}, {name.replace('_', ' ')}"
        yield row(words, value, "a simulation", wanted=f"at most {wanted}", holds=value <= wanted)


def _profile(setting: Setting, model: WorldModel) -> Counted:
    """Of one simulation, after enough of them that nothing is allocated, compiled or captured any more."""
    rows, width = model.geometry.env_num, model.geometry.embed_dim
    observations = np.ones((rows, *model.config.observation_shape), dtype=np.float32)
    first = model.forward_initial_inference(observations)
    roots = model.forward_initial_inference(observations, first.latents, [0] * rows, timesteps=1)
    assert roots.latents.shape == (rows, 1, width)

    def simulate() -> None:  # always from the root: contexts of one length, as a graph has them
        model.forward_recurrent_inference(roots.latents, [1] * rows, timesteps=1)

    for _ in range(12):  # allocations, compilations, captures, and every buffer of the staging once
        simulate()
    return profiled(setting, simulate, 2 if setting.quick else 10)


@dataclass
class _Split:
    """Nanoseconds of a model's parts, each waited for; ``now`` is a stopwatch's."""

    model: WorldModel
    stopwatch: Any

    def __post_init__(self) -> None:
        self.cache = self.forward = 0.0
        step = self.model._step
        self.model._step = lambda *args: self._timed("forward", step, *args)  # type: ignore[assignment]
        self.model.cache = ObservedCache(self.model.cache, self._cache_call)

    def _cache_call(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        return self._timed("cache", call, *args)

    def _timed(self, part: str, call: Callable[..., Any], *args: Any) -> Any:
        result, (host, _) = self.stopwatch.time(call, *args)
        setattr(self, part, getattr(self, part) + host)
        return result


def searches(setting: Setting) -> Iterator[GpuRow]:
    """Whole searches: their time and what they find, without and with CUDA graphs, and the split of their time."""
    for geometry in map(setting.small, setting.geometries):
        yield from _compared(setting, geometry, {"legacy, plain": _CACHES["legacy"], **_paged(_STEPS)})
        yield from _split(setting, geometry)


def compiled(setting: Setting) -> Iterator[GpuRow]:
    """Whole searches with compiled passes, without and with CUDA graphs, and how often something was compiled."""
    for geometry in map(setting.small, setting.geometries):
        yield from _compared(setting, geometry, _paged({"plain": {}, **_COMPILED}))


def _paged(steps: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"new:paged, {step}": {**_CACHES["new:paged"], **more} for step, more in steps.items()}


def _compared(setting: Setting, geometry: Geometry, variants: dict[str, dict[str, Any]]) -> Iterator[GpuRow]:
    """The same searches by each variant; what they find is compared with the first."""
    number = 3 if setting.quick else 6
    wanted: list[Played] = []
    for variant, options in variants.items():
        label = f"{geometry.name}, {variant}"
        try:
            model = _model(setting, geometry, **options)
            found, seconds = _timed_searches(setting, model, number)
        except (ValueError, RuntimeError) as error:
            yield _failed(setting, label, error)
            continue
        wanted = wanted or found
        yield row(f"{label}, a search", 1e3 * median(seconds[1:]), "ms")
        apart = max(float(np.abs(a.result.values[0] - b.result.values[0])) for a, b in zip(found, wanted, strict=True))
        first = float(np.abs(found[0].result.values - wanted[0].result.values).max())
        yield row(
            f"{label}, values of the first search", first, "apart", wanted=f"at most {_APART}", holds=first <= _APART
        )
        yield row(f"{label}, values of environment 0", apart, "apart")
        for name, count in model.step_counts.items():
            yield row(f"{label}, {name}", count, "in all")


def _timed_searches(setting: Setting, model: WorldModel, number: int) -> tuple[list[Played], list[float]]:
    """Searches, and seconds of each: the last inference of a search waits for the device."""
    config, stopwatch = SearchConfig(model.geometry.num_simulations), make_stopwatch(setting)
    playing, found, seconds = play(model, number, 0, config), [], []
    for _ in range(number):
        result, (host, _) = stopwatch.time(next, playing)
        found.append(result)
        seconds.append(host / 1e9)
    return found, seconds


def _split(setting: Setting, geometry: Geometry) -> Iterator[GpuRow]:
    """Of searches whose every part is waited for: those take longer than others do."""
    split = _Split(_model(setting, geometry, **_CACHES["new:paged"]), make_stopwatch(setting))
    _, seconds = _timed_searches(setting, split.model, 3)
    total = 1e9 * sum(seconds)
    for name, part in {"cache": split.cache, "forward": split.forward}.items():
        yield row(f"{geometry.name}, new:paged, {name} of recurrent inferences", 100 * part / total, "% of a search")
    rest = total - split.cache - split.forward
    yield row(f"{geometry.name}, new:paged, tree, roots and the rest", 100 * rest / total, "% of a search")


def sliding(setting: Setting) -> Iterator[GpuRow]:
    """Searches whose windows slide, with the other cache beside: every retrieval is compared."""
    for geometry in map(setting.small, setting.geometries):
        if geometry.context_length > 40:  # "contents" slides those; an episode here would take minutes
            continue
        options = {**_CACHES["new:paged"], "cache_storage": "slab", "cache_validation_mode": True}
        model = _model(setting, geometry, **options)
        steps = geometry.context_length // 2 + 3
        played = list(play(model, steps, 0, SearchConfig(4), episode_length=steps))
        report = model.cache.report
        assert report is not None
        slid = sum(size == geometry.slid_size for each in played for size in each.roots.sizes)
        yield row(f"{geometry.name}, roots whose window slid", slid, "roots", wanted="some", holds=slid > 0)
        compared = report.compared
        label = f"{geometry.name}, retrievals that are legacy's"
        yield row(label, compared, "retrievals", wanted=f"{report.lookups}", holds=compared == report.lookups)


def _failed(setting: Setting, label: str, error: BaseException) -> GpuRow:
    """Why there is no number. Only a CPU may lack something."""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return row(label, reason=reason, wanted="runs", holds=False if setting.device == "cuda" else None)
