"""What makes the calls of a replay, and times or counts them: by operation, and by recurrent step.

A step is charged for its share of what clears the pools after its search.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvbench.measure.counters import Counts, PlainCounter
from kvbench.measure.stopwatch import Lap, Stopwatch
from kvbench.replay.drive import OPERATIONS, STEP_OPERATIONS
from kvbench.trace.steps import Step
from kvcache import CacheBackend

__all__ = ["CountMeter", "SearchSteps", "TimeMeter", "is_counted"]


class SearchSteps:
    """The recurrent steps of one search, by their numbers: until after the next inference of roots that clears.

    Attributes:
        in_step: whether the present step is a recurrent one.
        is_over: whether the search was cleared, and all that is cleared now is of none.
    """

    def __init__(self) -> None:
        self.in_step = False
        self.is_over = True
        self._is_inference = False
        self._first = self._steps = 0

    def begin(self, step: Step) -> None:
        """The calls that follow are of this step."""
        if self.is_over:
            self._first = self._steps
        self._is_inference = bool(step.envs)  # an episode may end between inferences, which clears init caches
        self.in_step = step.is_recurrent
        if self.in_step:
            self.is_over = False
            self._steps += 1

    def clear(self) -> range:
        """The steps that share a clear made now; none where no search came before it."""
        self.is_over |= self._is_inference
        return range(self._first, self._steps)


class TimeMeter:
    """Makes each call of a timed pass, and keeps its lap.

    Attributes:
        by_operation: laps of each kind of operation.
        by_step: laps of each recurrent step.
        clears: lap of each clear after a search, and the steps that share it.
    """

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.by_operation: dict[str, list[Lap]] = {name: [] for name in OPERATIONS}
        self.by_step: list[list[Lap]] = []
        self.clears: list[tuple[range, Lap]] = []
        self._time = stopwatch.time
        self._search = SearchSteps()

    def begin(self, step: Step) -> None:
        """The calls that follow are of this step."""
        self._search.begin(step)
        if self._search.in_step:
            self.by_step.append([])

    def end(self, backend: CacheBackend) -> None:
        """The steps are done. Where their last search was not cleared, it is now."""
        if not self._search.is_over:
            self("clear", backend.clear_recur_cache)

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        result, lap = self._time(call, *args)
        self.by_operation[operation].append(lap)
        if operation not in STEP_OPERATIONS:
            shared = self._search.clear()
            if shared:
                self.clears.append((shared, lap))
        elif self._search.in_step:
            self.by_step[-1].append(lap)
        return result


class CountMeter:
    """Makes each call of a counted pass, and adds up the counts of the first ``searches``; None is all.

    Attributes:
        by_operation: counts of each kind of operation.
        by_step: of each recurrent step.
    """

    def __init__(self, searches: int | None) -> None:
        self.by_operation = {name: Counts() for name in OPERATIONS}
        self.by_step: list[Counts] = []
        self._counter = PlainCounter()
        self._searches = searches
        self._is_counted = False
        self._search = SearchSteps()

    def begin(self, step: Step) -> None:
        """As in ``TimeMeter``."""
        self._is_counted = is_counted(step, self._searches)
        self._search.begin(step)
        if self._search.in_step and self._is_counted:
            self.by_step.append(Counts())

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        clears = operation not in STEP_OPERATIONS
        shared = self._search.clear() if clears else range(0)
        if not self._is_counted and not (shared and shared[-1] < len(self.by_step)):
            return call(*args)
        self._counter.counts = Counts()
        with self._counter:
            result = call(*args)
        counts = self._counter.counts
        self.by_operation[operation] += counts
        if shared:
            self._share(counts, shared)
        elif self._search.in_step and not clears:
            self.by_step[-1] += counts
        return result

    def _share(self, counts: Counts, steps: range) -> None:
        """Add the counts of a clear to the steps that it ends: whole numbers, whose sum is exact."""
        for place, step in enumerate(steps):
            self.by_step[step] += counts.share(place, len(steps))


def is_counted(step: Step, searches: int | None) -> bool:
    """Whether a step is of the first ``searches``; None is all."""
    return searches is None or step.search < searches
