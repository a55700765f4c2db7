"""Whole searches of several backends in turns: each recurrent step with its share of the clears after its search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvbench.measure.stopwatch import Stopwatch, no_collection
from kvbench.replay.drive import STEP_OPERATIONS, FillerContent, Latents, run_step
from kvbench.replay.meters import SearchSteps
from kvbench.trace.steps import Step

__all__ = ["SearchClock", "take_turns"]


@dataclass
class SearchClock:
    """Makes each call of a backend, and knows what its searches cost.

    Attributes:
        time: makes a call. Returns its result and its lap.
        steps: nanoseconds of each recurrent step: hash, lookup, assemble, hash and store, and its share of what clears
            the pools after the search, once it does.
        clears: nanoseconds of these clears.
        longest: tokens of the longest context of each recurrent step's batch.
    """

    time: Callable[..., tuple[Any, Any]]
    steps: list[float] = field(default_factory=list)
    clears: list[float] = field(default_factory=list)
    longest: list[int] = field(default_factory=list)
    _search: SearchSteps = field(default_factory=SearchSteps)

    def begin(self, step: Step) -> None:
        """The calls that follow are of this step."""
        self._search.begin(step)
        if self._search.in_step:
            self.steps.append(0.0)

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        result, (nanoseconds, _) = self.time(call, *args)
        if operation not in STEP_OPERATIONS:
            self._share(nanoseconds)
        elif self._search.in_step:
            self.steps[-1] += nanoseconds
        return result

    def _share(self, clear: float) -> None:
        steps = self._search.clear()
        if steps:
            self.clears.append(clear)
        for step in steps:
            self.steps[step] += clear / len(steps)


def take_turns(
    steps: Iterable[Step], contents: Mapping[str, FillerContent], latents: Latents, stopwatch: Stopwatch
) -> dict[str, SearchClock]:
    """Drive fresh backends through the steps, one step at a time: A B A B, so that none finds what it just used.

    Args:
        steps: of a trace.
        contents: of each backend, by its name. They fill the backends.
        latents: of the trace's keys.
        stopwatch: for the calls.
    """
    clocks = {name: SearchClock(stopwatch.time) for name in contents}
    with no_collection():
        for step, inputs in latents.of_steps(steps):
            for name, content in contents.items():
                clocks[name].begin(step)
                run_step(content.backend, step, inputs, content, clocks[name])
                if step.is_recurrent:
                    clocks[name].longest.append(max(content.backend.keys_values_wm_size_list))
    return clocks
