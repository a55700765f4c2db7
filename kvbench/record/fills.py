"""Fills: how full contexts are when they are searched. Traces, claims, asv, the gate and README have them from here.

- ``start``: the first search of an episode. Its roots have one token.
- ``middle``: half of the steps that fill a window are behind.
- ``full``: a root is as long as can be, and has not slid. What grows from it slides.
- ``sliding``: the steady state of long episodes. Every token was computed in a full window, and has slid since.
- ``unequal``: one batch has environments of all lengths from ``start`` to ``full``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

from kvbench.record.synthetic import Node, SyntheticSearch
from kvbench.trace.schema import CLEAR, NO_ENV, ROOT_SIMULATION
from kvbench.trace.writer import TraceWriter
from kvcache import TOKENS_PER_STEP, Geometry

__all__ = ["FILLS", "FilledSearch", "root_steps"]

FILLS = ("start", "middle", "full", "sliding", "unequal")


def root_steps(geometry: Geometry, fill: str) -> list[int]:
    """Root inferences of each environment's episode, up to the one that begins the search.

    Raises:
        ValueError: there is no such fill.
    """
    if fill not in FILLS:
        raise ValueError(f"unknown fill {fill!r}: choose one of {', '.join(FILLS)}")
    full, rows = _steps_without_slide(geometry), geometry.env_num
    if fill == "unequal":
        return [1 + round((full - 1) * row / (rows - 1)) for row in range(rows - 1)] + [full]
    sliding = full + geometry.context_length // TOKENS_PER_STEP
    return [{"start": 1, "middle": (full + 1) // 2, "full": full, "sliding": sliding}[fill]] * rows


def _steps_without_slide(geometry: Geometry) -> int:
    """Root inferences until one more would slide the window."""
    steps, size = 1, 1
    while geometry.window(size + TOKENS_PER_STEP) == (0, size + TOKENS_PER_STEP):
        steps, size = steps + 1, size + TOKENS_PER_STEP
    return steps


@dataclass
class FilledSearch(SyntheticSearch):
    """Searches of contexts of one fill.

    Episodes are stepped through without a search until contexts have the fill. Then they are searched: from ``sliding``
    on step by step, the others once, and then they begin again. The clear that ends a search is the next root's; one
    more step ends the last search.
    """

    _: KW_ONLY
    fill: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._root_steps = root_steps(self.geometry, self.fill)
        self._step = -1

    @property
    def source(self) -> dict[str, Any]:
        return {**super().source, "fill": self.fill}

    def write(self, writer: TraceWriter) -> Iterator[int]:
        for search in range(self.searches):
            if search and self.fill == "sliding":
                self._go_on(writer, search)
            else:
                self._fill(writer, search)
            self._simulate_all(writer, search)
            yield search + 1
        self._go_on(writer, self.searches - 1)

    def _fill(self, writer: TraceWriter, search: int) -> None:
        """New episodes. The shorter ones begin later, so that all have their length at the end."""
        longest = max(self._root_steps)
        for step in range(longest):
            begun = [env for env, steps in enumerate(self._root_steps) if step >= longest - steps]
            first = {env for env in begun if step == longest - self._root_steps[env]}
            self._infer_roots(
                writer, search, {env: None if env in first else self._environments[env].root for env in begun}
            )

    def _go_on(self, writer: TraceWriter, search: int) -> None:
        self._infer_roots(writer, search, {env: each.root for env, each in enumerate(self._environments)})

    def _infer_roots(self, writer: TraceWriter, search: int, parents: dict[int, Node | None]) -> None:
        """One step of the environments. Contexts of one length are a batch: LightZero 0.2.0 would store the padding."""
        self._step += 1
        sizes = {env: 0 if parent is None else parent.size for env, parent in parents.items()}
        for size in sorted(set(sizes.values())):
            rows = {env: parent for env, parent in parents.items() if sizes[env] == size}
            for env, root in self._infer(writer, search, ROOT_SIMULATION, rows).items():
                self._environments[env].root = root
                self._environments[env].keys = []
        writer.add(CLEAR, "recur", NO_ENV, self._batch - 1, search, ROOT_SIMULATION)
