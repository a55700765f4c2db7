"""Replaying a trace against several backends: checked, counted, and timed side by side.

Three passes. *Verify* runs each backend alone with contents that are checked token by token, and counts what it asks of
torch; nothing is timed. *Warm* runs each backend alone with filler contents: slots get allocated, memory is read off.
*Time* runs all backends in lock-step, one step at a time in alternating order, so that a slow moment of the machine
hits all of them; it holds nothing but the backends' own calls.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from kvbench.measure.counters import Counts
from kvbench.measure.memory import watch_memory
from kvbench.measure.stopwatch import Stopwatch, make_stopwatch, no_collection, split_laps
from kvbench.replay.content import Contents
from kvbench.replay.drive import OPERATIONS, FillerContent, Latents, run_step
from kvbench.replay.meters import CountMeter, TimeMeter, is_counted
from kvbench.replay.outcomes import Outcomes
from kvbench.replay.timeline import Timeline
from kvbench.replay.verify import CheckedContent
from kvbench.trace.steps import Step, reach_of
from kvcache import CacheBackend, CacheConfig, make_backend

__all__ = ["BackendReport", "Replay", "StepTimes", "Verification", "verify_replay"]


@dataclass
class Verification:
    """A backend's results and its counted operations, which are deterministic.

    Attributes:
        faults: contents that were never stored, and stored ones that were lost, each with its place.
        counts: over all searches that were counted, by kind of operation.
        step_counts: those of each recurrent step of these, with its share of what clears the pools after the search.
        evictions: by pool: ``init`` (all environments), ``recur``.
        bytes_reserved: at the end, by pool; pools never shrink.
        timeline: None where none was asked for.
    """

    outcomes: Outcomes
    faults: list[str]
    counts: dict[str, Counts]
    step_counts: list[Counts]
    evictions: dict[str, int]
    bytes_reserved: dict[str, int]
    timeline: Timeline | None = None


@dataclass
class StepTimes:
    """Laps of one backend: host nanoseconds, and device nanoseconds where there is a device clock.

    Attributes:
        host: by kind of operation, every call of all repetitions.
        step: whole recurrent steps, ``[repetitions][steps]``: hash, lookup, assemble and store of all environments, and
            a share of what clears the pools after the search.
        device, step_device: the same on the device's clock; empty without one.
    """

    host: dict[str, array[int]] = field(default_factory=lambda: {name: array("q") for name in OPERATIONS})
    device: dict[str, array[float]] = field(default_factory=dict)
    step: list[array[float]] = field(default_factory=list)
    step_device: list[array[float]] = field(default_factory=list)

    def add(self, meter: TimeMeter) -> None:
        """Add the laps of one repetition."""
        for operation, laps in meter.by_operation.items():
            host, device = split_laps(laps)
            self.host[operation].extend(host)
            if device:
                self.device.setdefault(operation, array("d")).extend(device)
        steps = [split_laps(laps) for laps in meter.by_step]
        clears = [(shared, split_laps([lap])) for shared, lap in meter.clears]
        self.step.append(_whole_steps([host for host, _ in steps], [(shared, host) for shared, (host, _) in clears]))
        if self.device:
            on_device = [(shared, device) for shared, (_, device) in clears]
            self.step_device.append(_whole_steps([device for _, device in steps], on_device))


def _whole_steps(steps: Iterable[Sequence[float]], clears: Iterable[tuple[range, Sequence[float]]]) -> array[float]:
    """Nanoseconds of each step: its laps, and its share of those of the clears."""
    whole = array("d", map(sum, steps))
    for shared, laps in clears:
        for step in shared:
            whole[step] += sum(laps) / len(shared)
    return whole


@dataclass
class BackendReport:
    """The results of a replay for one backend; None stands for a pass that was left out.

    Attributes:
        peak_bytes: most memory that the backend and its batches held at once, in the searches that were counted: by the
            device's allocator, or on a CPU counted storage by storage.
    """

    name: str
    verification: Verification | None = None
    times: StepTimes | None = None
    peak_bytes: int | None = None


class _Ticking(Iterable[Step]):
    """The steps of a pass; tells how many are done after each."""

    def __init__(self, steps: Collection[Step], progress: Callable[[int], None]) -> None:
        self._steps, self._progress = steps, progress
        self.reach = reach_of(steps)

    def __iter__(self) -> Iterator[Step]:
        for done, step in enumerate(self._steps, 1):
            yield step
            self._progress(done)


class Replay:
    """One trace, one configuration, several backends.

    Args:
        backends: names from ``kvcache.BACKENDS``.
        make: builds a backend from its name and a configuration.
        stopwatch: None takes the one that suits the device.
        progress: is told the pass, the steps done and the steps in all.

    Raises:
        ValueError: an unknown backend, or one named twice.
    """

    def __init__(
        self,
        steps: Collection[Step],
        config: CacheConfig,
        backends: Sequence[str],
        *,
        make: Callable[[str, CacheConfig], CacheBackend] = make_backend,
        stopwatch: Stopwatch | None = None,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
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

    def run(self, repetitions: int, counted_searches: int | None = None) -> dict[str, BackendReport]:
        """All passes.

        Args:
            repetitions: of the timed one; 0 leaves it and the warm one out.
            counted_searches: operations and memory are counted in the first so many; None is all.
        """
        for name, report in self.reports.items():
            report.verification = self.verify(name, Timeline(len(self.steps)), counted_searches)
        if repetitions:
            self.time(repetitions, counted_searches)
        return self.reports

    def verify(self, name: str, timeline: Timeline | None = None, counted_searches: int | None = None) -> Verification:
        """The checked and counted pass of one backend."""
        steps = self._ticking(f"check what {name} returns")
        backend = self._build(name)
        return verify_replay(backend, steps, self._contents, self._latents, timeline, counted_searches)

    def time(self, repetitions: int, counted_searches: int | None = None) -> None:
        """The warm and the timed pass of all backends, side by side."""
        contents = {name: self._warm(name, counted_searches) for name in self.reports}
        times = {name: StepTimes() for name in contents}
        for number in range(repetitions):
            for content in contents.values():
                content.backend.clear_all()
            meters = {name: TimeMeter(self._stopwatch) for name in contents}
            with no_collection():
                self._time(contents, meters, f"time all in turns, {number + 1} of {repetitions}")
            for name, meter in meters.items():
                times[name].add(meter)
        for name, report in self.reports.items():
            report.times = times[name]

    def _build(self, name: str) -> CacheBackend:
        backend = self._make(name, self.config)
        backend.position_shift = self._contents.position_shift(self.config.device, self.config.dtype)
        return backend

    def _ticking(self, what: str) -> _Ticking:
        return _Ticking(self.steps, lambda done: self._progress(what, done, len(self.steps)))

    def _warm(self, name: str, counted_searches: int | None = None) -> FillerContent:
        """One untimed run on a backend of its own: slots are allocated, lazily made things made."""
        with ExitStack() as watched:
            memory = watched.enter_context(watch_memory(self.config.device))
            content = FillerContent(self._build(name))
            for step, inputs in self._latents.of_steps(self._ticking(f"warm up {name}")):
                if not is_counted(step, counted_searches):
                    watched.close()
                run_step(content.backend, step, inputs, content, lambda _, call, *args: call(*args))
        self.reports[name].peak_bytes = memory.peak
        return content

    def _time(self, contents: dict[str, FillerContent], meters: dict[str, TimeMeter], what: str) -> None:
        """One repetition of the timed pass."""
        order = list(contents)
        for number, (step, inputs) in enumerate(self._latents.of_steps(self._ticking(what))):
            # A B, B A, A B, ...: whoever goes second finds caches that the other has just used.
            for name in order if number % 2 == 0 else reversed(order):
                meters[name].begin(step)
                run_step(contents[name].backend, step, inputs, contents[name], meters[name])
        for name, content in contents.items():
            meters[name].end(content.backend)


def verify_replay(
    backend: CacheBackend, steps: Iterable[Step], contents: Contents, latents: Latents,
    timeline: Timeline | None = None, counted_searches: int | None = None,
) -> Verification:  # fmt: skip
    """Drive a fresh backend through the steps, checking every context it returns.

    The backend's ``position_shift`` must be that of ``contents``. A ``timeline`` is filled. Operations are counted in
    the first ``counted_searches``; None is all.
    """
    content = CheckedContent(backend, contents, timeline, reach_of(steps))
    meter = CountMeter(counted_searches)
    for step, inputs in latents.of_steps(steps):
        meter.begin(step)
        run_step(backend, step, inputs, content, meter)
        content.cleared(step)
        if timeline is not None:
            timeline.sample(backend)
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
        timeline=timeline,
    )
