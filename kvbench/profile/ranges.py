"""Named ranges around what a replay asks of a backend, for profilers to show; a timed replay has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch.profiler import record_function

from kvbench.replay.drive import OPERATIONS, Content, StepInputs, run_step
from kvbench.trace.steps import Step
from kvcache import CacheBackend, KeysValues

__all__ = ["INFERENCES", "KINDS", "MODEL", "Annotate", "Ranges", "make_annotate"]

# Operation kinds, as reports call them; what a world model would do, of which a replay has a stand-in; and inferences.
KINDS = (*OPERATIONS, "supply")
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
        """``kvbench.replay.drive.run_step`` with ranges; the backend is watched for as long as this runs."""
        with self._annotate(RECURRENT if step.is_recurrent else ROOT), self._supply_of(backend):
            run_step(backend, step, inputs, _RangedContent(content, self), self)

    def __call__(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        """The meter of a profiled pass."""
        with self._annotate(operation):
            return call(*args)

    @contextmanager
    def _supply_of(self, backend: CacheBackend) -> Iterator[None]:
        # The one call of a backend that the driver makes without asking its meter.
        backend.supply = partial(self, "supply", backend.supply)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del backend.supply  # the class's own is seen again


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
    """What opens a range for the profilers of a device: torch's own, and on CUDA NVTX's (Nsight Systems) besides."""
    return _with_nvtx if torch.device(device).type == "cuda" else record_function


@contextmanager
def _with_nvtx(name: str) -> Iterator[None]:
    with record_function(name), torch.cuda.nvtx.range(name):
        yield
