"""A clock for the gate's benchmarks that runs while a backend works."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["BackendClock"]


class BackendClock:
    """Seconds that the backend under test has worked so far: every call of it goes through ``meter``."""

    def __init__(self) -> None:
        self._nanoseconds = 0

    def __call__(self) -> float:
        return self._nanoseconds / 1e9

    def meter(self, operation: str, call: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter_ns()
        result = call(*arguments)
        self._nanoseconds += time.perf_counter_ns() - start
        return result
