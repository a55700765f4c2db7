"""Named ranges around the operations of a replay, for profilers to show; a timed replay has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.profiler import record_function

from kvbench.replay.drive import OPERATIONS, FillerContent, StepInputs, run_step
from kvbench.trace.steps import Step
from kvcache import CacheBackend, KeysValues, ObservedCache

__all__ = ["INFERENCES", "KINDS", "MODEL", "Annotate", "RangedReplay", "annotate_cuda"]

# Operation kinds, as reports call them; the stand-in for a world model's work; and inferences.
SUPPLY = "supply"
KINDS = (*OPERATIONS, SUPPLY)
MODEL = "model (stand-in)"
ROOT, RECURRENT = INFERENCES = ("initial inference", "recurrent step")

# Opens a range of that name.
Annotate = Callable[[str], AbstractContextManager[Any]]


class RangedReplay(FillerContent):
    """Drives a backend through steps, with a range around each inference and each operation in it."""

    def __init__(self, backend: CacheBackend, annotate: Annotate) -> None:
        super().__init__(backend)
        self._observed = ObservedCache(backend, self._observe)
        self._annotate = annotate

    def run_step(self, step: Step, inputs: StepInputs) -> None:
        """``kvbench.replay.drive.run_step`` with ranges."""
        with self._annotate(RECURRENT if step.is_recurrent else ROOT):
            run_step(self._observed, step, inputs, self, self._in_range)

    def generate(self, step: Step, row: int) -> KeysValues:
        generated: KeysValues = self._in_range(MODEL, super().generate, step, row)
        return generated

    def append(self, batch: KeysValues, step: Step) -> None:
        self._in_range(MODEL, super().append, batch, step)

    def _in_range(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
        with self._annotate(name):
            return call(*args)

    def _observe(self, operation: str, call: Callable[..., Any], *args: Any) -> Any:
        # The one call of a backend that the driver makes without its meter.
        return self._in_range(operation, call, *args) if operation == SUPPLY else call(*args)


@contextmanager
def annotate_cuda(name: str) -> Iterator[None]:
    """Open a range for torch's profiler, and for NVTX's (Nsight Systems)."""
    with record_function(name), torch.cuda.nvtx.range(name):
        yield
