"""Named ranges around the operations of a replay, for profilers to show; a timed replay has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.profiler import record_function

from kvbench.replay.drive import OPERATIONS, Content, StepInputs, run_step
from kvbench.trace.steps import Step
from kvcache import CacheBackend, KeysValues, ObservedCache

__all__ = ["INFERENCES", "KINDS", "MODEL", "Annotate", "Ranges", "make_annotate"]

# Operation kinds, as reports call them; the stand-in for a world model's work; and inferences.
SUPPLY = "supply"
KINDS = (*OPERATIONS, SUPPLY)
MODEL = "model (stand-in)"
ROOT, RECURRENT = INFERENCES = ("initial inference", "recurrent step")

# Opens a range of that name.
Annotate = Callable[[str], AbstractContextManager[Any]]


class Ranges:
    """Drives a backend through steps with a range around each inference and each operation in it.

    Args:
        annotate: opens a range.
    """

    def __init__(self, annotate: Annotate) -> None:
        self._annotate = annotate

    def run_step(self, backend: CacheBackend, step: Step, inputs: StepInputs, content: Content) -> None:
        """``kvbench.replay.drive.run_step`` with ranges."""
        with self._annotate(RECURRENT if step.is_recurrent else ROOT):
            run_step(ObservedCache(backend, self._observe), step, inputs, _RangedContent(content, self), self)

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        """The meter of a profiled pass."""
        with self._annotate(operation):
            return call(*args)

    def _observe(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        # The one call of a backend that the driver makes without its meter.
        return self(operation, call, *args) if operation == SUPPLY else call(*args)


class _RangedContent:
    """The model's part of a step, in ranges of its own."""

    def __init__(self, content: Content, ranges: Ranges) -> None:
        self._content = content
        self._ranges = ranges

    def generate(self, step: Step, row: int) -> KeysValues:
        generated: KeysValues = self._ranges(MODEL, self._content.generate, step, row)
        return generated

    def assembled(self, backend: CacheBackend, step: Step, found: list[int]) -> None:
        self._content.assembled(backend, step, found)

    def append(self, batch: KeysValues, step: Step) -> None:
        self._ranges(MODEL, self._content.append, batch, step)

    def stored(self, backend: CacheBackend, step: Step) -> None:
        self._content.stored(backend, step)


def make_annotate(device: torch.device | str) -> Annotate:
    """A function that opens ranges for a device's profilers: torch's, and on CUDA NVTX's (Nsight Systems) too."""
    return _with_nvtx if torch.device(device).type == "cuda" else record_function


@contextmanager
def _with_nvtx(name: str) -> Iterator[None]:
    with record_function(name), torch.cuda.nvtx.range(name):
        yield
