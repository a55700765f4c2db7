"""Cells of a benchmark: the numbers of one combination of parameters, or why it has none."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, ClassVar

from .bridge import METRICS, put_suite_in_place
from .processes import measure_elsewhere, middle

__all__ = ["Cell", "Cells", "Place", "attempt", "lacking", "publish_counters", "together", "track"]

Place = tuple[Any, ...]  # one value of each parameter

# Numbers by name; a text for a cell that is skipped, an error for one that fails. It holds nothing of the library under
# test: asv hands cells to other processes by pickle.
Cell = dict[str, Any] | str | Exception


class Cells:
    """A benchmark whose cells are all measured at once.

    asv knows a cache by the line of its ``setup_cache``: each benchmark has its own, which returns ``all_cells``.
    """

    params: ClassVar[list[list[Any]]]
    timeout = 600
    processes: ClassVar[int] = 1  # an odd number

    def measure(self) -> dict[Place, Cell]:
        """Every cell, by its place in ``params``."""
        raise NotImplementedError

    def all_cells(self) -> dict[Place, Cell]:
        """``measure`` under the harness of this checkout, on one thread."""
        missing = put_suite_in_place()
        if missing:
            return dict.fromkeys(product(*self.params), missing)
        import torch

        torch.set_num_threads(1)
        # Garbage is collected before each timing: looking through all that torch is made of would take 0.2 s each time.
        gc.collect()
        gc.freeze()
        try:
            cells = self.measure()
        finally:
            gc.unfreeze()
        if self.processes == 1:
            return cells
        found = [cells, *measure_elsewhere(self, self.processes - 1)]
        return {place: middle([each[place] for each in found]) for place in cells}

    def setup(self, cells: dict[Place, Cell], *place: Any) -> None:
        cell = cells[place]
        if isinstance(cell, str):
            raise NotImplementedError(cell)
        if isinstance(cell, Exception):
            raise cell
        self.cell = cell


def track(benchmark: type[Cells], name: str, unit: str, value: Callable[[Cell], float]) -> None:
    """Give a benchmark the method ``track_NAME``: what ``value`` finds in a cell."""

    def method(self: Any, cells: Any, *place: Any) -> float:
        return value(self.cell)

    method.unit = unit  # type: ignore[attr-defined]
    # Explicit, so that an edit of the text does not throw the history away; raised when what it means changes.
    method.version = "1"  # type: ignore[attr-defined]
    method.__name__ = f"track_{name}"
    setattr(benchmark, method.__name__, method)


def publish_counters(benchmark: type[Cells], per: str, value: Callable[[Cell, str], float], *only: str) -> None:
    """``track`` every published counter of ``kvbench.metrics``, or only some of them, by its name in a cell."""
    for counter in METRICS.COUNTERS:
        if counter.published and (not only or counter.name in only):
            unit = f"{counter.unit} per {per}"
            track(benchmark, counter.slug, unit, lambda cell, name=counter.name: value(cell, name))


def lacking(backend: str, device: str) -> str | None:
    """Why this backend cannot be measured on this device; None where it can."""
    import torch

    from kvcache import BACKENDS

    if device == "cuda" and not torch.cuda.is_available():
        return "skipped: no CUDA device"
    if backend not in BACKENDS:
        return f"skipped: this commit has no backend {backend!r}"
    return None


def attempt(backend: str, measure: Callable[..., Any], *arguments: Any) -> Any:
    """What ``measure(*arguments)`` returns, or the error for which the backend's cells fail."""
    from kvbench.replay.operations import WrongContentError

    try:
        return measure(*arguments)
    except WrongContentError as error:
        # A cache that returns wrong content is no fast cache: none of its numbers stands.
        return RuntimeError(f"{backend} returned wrong content: {str(error).removeprefix(f'{backend}: ')}")
    except Exception as error:
        return RuntimeError(f"{backend} raised {type(error).__name__}: {error}")


def together(backends: Sequence[str], measure: Callable[[list[str]], dict[str, Any]]) -> dict[str, Any]:
    """What ``measure`` finds for each backend when it measures them side by side.

    Where it fails, each is measured alone, to learn whose fault it is: that backend's value is its error, and the
    others are measured without it.
    """
    sound, failed = list(backends), {}
    while sound:
        try:
            return failed | measure(sound)
        except Exception as error:
            alone = {backend: attempt(backend, measure, [backend]) for backend in sound}
            failed |= {backend: found for backend, found in alone.items() if isinstance(found, Exception)}
            if not set(failed) & set(sound):
                reason = f"measured side by side, {' and '.join(sound)} raised {type(error).__name__}: {error}"
                failed |= {backend: RuntimeError(reason) for backend in sound}
            sound = [backend for backend in sound if backend not in failed]
    return failed
