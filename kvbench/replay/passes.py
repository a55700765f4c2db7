"""Replaying a trace against several backends: checked, counted, and timed side by side.

Three passes. *Verify* runs each backend alone with contents that are checked token by token, and counts what it asks of
torch; nothing is timed. *Warm* runs each backend alone with filler contents: slots get allocated, memory is read off.
*Time* runs all backends in lock-step, one step at a time in alternating order, so that a slow moment of the machine
hits all of them; it holds nothing but the backends' own calls.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvbench.measure.counters import Counts, OperationCounter
from kvbench.measure.memory import watch_memory
from kvbench.measure.stopwatch import Lap, Stopwatch, make_stopwatch
from kvbench.replay.content import Contents
from kvbench.replay.drive import OPERATIONS, STEP_OPERATIONS, FillerContent, Latents, run_step
from kvbench.replay.outcomes import Outcomes
from kvbench.replay.timeline import Timeline
from kvbench.replay.verify import CheckedContent
from kvbench.trace.steps import Step
from kvcache import CacheBackend, CacheConfig, make_backend

__all__ = ["BackendReport", "Replay", "StepTimes", "Verification", "verify_replay"]

Progress = Callable[[str, int, int], None]  # (pass, steps done, steps in all)


def _no_progress(what: str, done: int, total: int) -> None:
    pass


@dataclass
class Verification:
    """A backend's results and its counted operations, which are deterministic.

    Attributes:
        outcomes: of every lookup.
        faults: contents that were never stored, and stored ones that were lost, each with its place; a sound backend
            has none.
        counts: dispatched operations by kind of operation, over the whole replay.
        step_counts: those of each recurrent step.
        evictions: by pool: ``init`` (all environments), ``recur``.
        bytes_reserved: at the end, by pool; pools never shrink.
        stats: the backend's own counters.
    """

    outcomes: Outcomes
    faults: list[str]
    counts: dict[str, Counts]
    step_counts: list[Counts]
    evictions: dict[str, int]
    bytes_reserved: dict[str, int]
    stats: dict[str, Any]


@dataclass
class StepTimes:
    """Laps of one backend: host nanoseconds, and device nanoseconds where there is a device clock.

    Attributes:
        host: by kind of operation, every call of all repetitions.
        device: the same on the device's clock; empty without one.
        step: whole recurrent steps, ``[repetitions][steps]``: hash, lookup, assemble and store of all environments.
        step_device: the same on the device's clock.
    """

    host: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in OPERATIONS})
    device: dict[str, list[float]] = field(default_factory=dict)
    step: list[list[int]] = field(default_factory=list)
    step_device: list[list[float]] = field(default_factory=list)


@dataclass
class BackendReport:
    """The results of a replay for one backend.

    Attributes:
        name: of the backend.
        verification: outcomes and counts; None where that pass was left out.
        timeline: of the same pass; None where only ``verify`` was called.
        times: None where nothing was timed.
        peak_bytes: most memory that the backend and its batches held at once: by the device's allocator, or on a CPU
            counted storage by storage; None where the timed pass was left out.
    """

    name: str
    verification: Verification | None = None
    timeline: Timeline | None = None
    times: StepTimes | None = None
    peak_bytes: int | None = None


class Replay:
    """One trace, one configuration, several backends.

    Args:
        steps: of the trace.
        config: what every backend is built for.
        backends: names from ``kvcache.registry.BACKENDS``; the first is the baseline of ratios.
        make: builds a backend from its name and a configuration.
        stopwatch: None takes the one that suits the device.

    Raises:
        ValueError: an unknown backend, or one named twice.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        config: CacheConfig,
        backends: Sequence[str],
        *,
        make: Callable[[str, CacheConfig], CacheBackend] = make_backend,
        stopwatch: Stopwatch | None = None,
        progress: Progress = _no_progress,
    ) -> None:
        if len(set(backends)) != len(backends):
            raise ValueError(f"a backend is named twice: {', '.join(backends)}")
        self.steps = steps
        self.config = config
        self.reports = {name: BackendReport(name) for name in backends}
        self._make = make
        self._stopwatch = stopwatch or make_stopwatch(config.device)
        self._progress = progress
        self._contents = Contents(config.geometry)
        self._latents = Latents(config.geometry.embed_dim, config.device)
        for name in backends:
            self._build(name)

    def run(self, repetitions: int) -> dict[str, BackendReport]:
        """All passes. ``repetitions`` of the timed one; 0 leaves it and the warm one out."""
        for name, report in self.reports.items():
            report.timeline = Timeline(len(self.steps))
            report.verification = self.verify(name, report.timeline)
        if repetitions:
            self.time(repetitions)
        return self.reports

    def verify(self, name: str, timeline: Timeline | None = None) -> Verification:
        """The checked and counted pass of one backend."""
        backend = self._build(name)
        return verify_replay(
            backend, self.steps, self._contents, self._latents, lambda done: self._tick(f"check {name}", done), timeline
        )

    def time(self, repetitions: int) -> None:
        """The warm and the timed pass of all backends, side by side."""
        self._time({name: self._warm(name) for name in self.reports}, repetitions)

    def _build(self, name: str) -> CacheBackend:
        backend = self._make(name, self.config)
        backend.position_shift = self._contents.position_shift(self.config.device, self.config.dtype)
        return backend

    def _tick(self, what: str, done: int) -> None:
        self._progress(what, done, len(self.steps))

    def _warm(self, name: str) -> CacheBackend:
        """One untimed run on a backend of its own: slots are allocated, lazily made things made."""
        with watch_memory(self.config.device) as memory:
            backend = self._build(name)
            content = FillerContent(backend)
            for done, step in enumerate(self.steps, 1):
                run_step(backend, step, self._latents.inputs(step), content, _just_call)
                self._tick(f"warm up {name}", done)
        self.reports[name].peak_bytes = memory.peak
        return backend

    def _time(self, backends: dict[str, CacheBackend], repetitions: int) -> None:
        contents = {name: FillerContent(backend) for name, backend in backends.items()}
        for report in self.reports.values():
            report.times = StepTimes()
        order = list(backends)
        enabled = gc.isenabled()
        try:
            for repetition in range(repetitions):
                gc.collect()
                gc.disable()
                recorders = {name: _Recorder(self._stopwatch) for name in backends}
                for backend in backends.values():
                    backend.clear_all()
                for number, step in enumerate(self.steps):
                    inputs = self._latents.inputs(step)
                    # A B, B A, A B, ...: whoever goes second finds caches that the other has just used.
                    for name in order if number % 2 == 0 else reversed(order):
                        recorders[name].begin(step)
                        run_step(backends[name], step, inputs, contents[name], recorders[name])
                    self._tick(f"time, repetition {repetition + 1} of {repetitions}", number + 1)
                for name, recorder in recorders.items():
                    times = self.reports[name].times
                    assert times is not None
                    recorder.hand_over(times)
        finally:
            if enabled:
                gc.enable()


class _Recorder:
    """The meter of the timed pass: keeps every lap, and which recurrent step it belongs to."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._laps: list[tuple[str, int, Lap]] = []
        self._step = -1
        self._steps = 0

    def begin(self, step: Step) -> None:
        self._step = -1
        if step.is_recurrent:
            self._step = self._steps
            self._steps += 1

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        result, lap = self._stopwatch.time(call, *args)
        self._laps.append((operation, self._step, lap))
        return result

    def hand_over(self, times: StepTimes) -> None:
        step, step_device = [0] * self._steps, [0.0] * self._steps
        for operation, number, (host, read_device) in self._laps:
            times.host[operation].append(host)
            in_step = number >= 0 and operation in STEP_OPERATIONS
            if in_step:
                step[number] += host
            if read_device is not None:
                device = read_device()
                times.device.setdefault(operation, []).append(device)
                if in_step:
                    step_device[number] += device
        times.step.append(step)
        if times.device:
            times.step_device.append(step_device)


class _Counting:
    """The meter of the checked pass: counts dispatched operations by kind, and in each recurrent step."""

    def __init__(self) -> None:
        self.by_operation = {name: Counts() for name in OPERATIONS}
        self.by_step: list[Counts] = []
        self._in_step = False

    def begin(self, step: Step) -> None:
        self._in_step = step.is_recurrent
        if self._in_step:
            self.by_step.append(Counts())

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        with OperationCounter() as counter:
            result = call(*args)
        self.by_operation[operation] += counter.counts
        if self._in_step and operation in STEP_OPERATIONS:
            self.by_step[-1] += counter.counts
        return result


def _just_call(operation: str, call: Callable[..., Any], *args: Any) -> Any:
    return call(*args)


def verify_replay(
    backend: CacheBackend,
    steps: Iterable[Step],
    contents: Contents,
    latents: Latents,
    tick: Callable[[int], None] = lambda done: None,
    timeline: Timeline | None = None,
) -> Verification:
    """Drive a fresh backend through the steps, checking every context it returns.

    The backend's ``position_shift`` must be that of ``contents``. A ``timeline`` is filled.
    """
    content = CheckedContent(backend, contents)
    meter = _Counting()
    for done, step in enumerate(steps, 1):
        meter.begin(step)
        judged = len(content.outcomes.by_lookup)
        run_step(backend, step, latents.inputs(step), content, meter)
        content.cleared(step.clears)
        if timeline is not None:
            timeline.add(backend, step, content.outcomes.by_lookup[judged:])
        tick(done)
    stats = backend.get_stats_summary()
    return Verification(
        outcomes=content.outcomes,
        faults=content.faults,
        counts=meter.by_operation,
        step_counts=meter.by_step,
        evictions={
            "init": int(sum(pool["evictions"] for pool in stats["init_pools"].values())),
            "recur": int(stats["recur_pool"]["evictions"]),
        },
        bytes_reserved=backend.bytes_reserved,
        stats=stats,
    )
