"""A flame graph as one SVG file that needs nothing else: no network, no server, no other file.

PyPI has no kept-up renderer of folded stacks (pyflamegraph wraps a Perl script of 2015, the others draw their own
profiler's data or a terminal); speedscope is an application of its own, and opens the folded stacks beside this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from kvbench.profile.chrome_trace import Stack, Stacks

__all__ = ["render_difference", "render_flame_graph"]

_ROW = 18  # pixels, as below
_HEAD = 78
_LEAST_SHARE = 0.0005  # of the whole: a narrower box would be less than a pixel wide
_LEGEND = {"kind": "operation of the cache", "ours": "kvcache", "python": "other Python", "torch": "torch"}
# A frame's change, as a share of the whole: at least this much has the colour.
_CHANGES = {"more-much": 0.05, "more": 0.01, "more-little": 0.0005}
_LEGEND_OF_CHANGES = {
    "more-much": "5 % of all more", "more": "1 % more", "more-little": "a little more", "equal": "equal",
    "less-little": "a little less", "less": "1 % less", "less-much": "5 % less",
}  # fmt: skip


class _Frame(NamedTuple):
    """One box: its left edge and its width are shares of the picture's; its size is the stack's with callees."""

    stack: Stack
    x: float
    share: float
    size: int

    @property
    def name(self) -> str:
        return self.stack[-1] if self.stack else "all"

    @property
    def level(self) -> int:
        return len(self.stack)


class _Box(NamedTuple):
    """A frame, the class of its colour, and what is said of it."""

    frame: _Frame
    kind: str
    said: str


def render_flame_graph(stacks: Stacks, title: str, note: str) -> str:
    """The picture: callers above callees, as wide as the time they took, the longest on the left.

    Hovering shows a frame's name, time and share; a click widens it, and one on the topmost shows all again. Works in
    light and dark and at any width. Frames of less than a two-thousandth of the time are left out. ``title`` and
    ``note`` are the first lines.
    """
    boxes = [
        _Box(each, _kind(each.stack), f"{each.size / 1e6:,.3f} ms, {100 * each.share:.1f} %")
        for each in _frames(stacks)
    ]
    return _render(boxes, _LEGEND, title, note)


def render_difference(base: Stacks, head: Stacks, title: str, note: str) -> str:
    """The picture of two: a frame is as wide as the larger of both, red where the head has more, and blue where less.

    Sizes are instructions. What one side alone has is there, too.
    """
    larger = {stack: max(base.get(stack, 0), head.get(stack, 0)) for stack in {**base, **head}}
    of_base, of_head = _with_callees(base), _with_callees(head)
    whole = max(of_base[()], 1)
    boxes = []
    for frame in _frames(larger):
        before, after = of_base[frame.stack], of_head[frame.stack]
        share = (after - before) / whole
        boxes.append(_Box(frame, _change(share), f"{before:,} -> {after:,} instructions, {100 * share:+.2f} % of all"))
    return _render(boxes, _LEGEND_OF_CHANGES, title, note)


def _render(boxes: list[_Box], legend: Mapping[str, str], title: str, note: str) -> str:
    environment = Environment(
        loader=PackageLoader("kvbench.profile"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("flame.svg").render(
        title=title, note=note, legend=legend, boxes=boxes, row=_ROW, head=_HEAD,
        depth=1 + max((box.frame.level for box in boxes), default=0),
    )  # fmt: skip


def _with_callees(stacks: Stacks) -> Counter[Stack]:
    """The size of each stack with all that it called; of the empty one, the whole."""
    sizes: Counter[Stack] = Counter()
    for stack, size in stacks.items():
        for level in range(len(stack) + 1):
            sizes[stack[:level]] += size
    return sizes


def _frames(stacks: Stacks) -> list[_Frame]:
    """All frames that can be seen, each behind its caller, and the largest callee of a caller first."""
    sizes = _with_callees(stacks)
    whole = sizes[()]
    frames = []
    edges: dict[Stack, float] = {(): 0.0}  # of each frame: where its next callee begins

    def order(stack: Stack) -> list[tuple[int, str]]:
        return [(-sizes[stack[: level + 1]], name) for level, name in enumerate(stack)]

    for stack in sorted(sizes, key=order):
        share = sizes[stack] / whole if whole else 0.0
        if share < _LEAST_SHARE:
            continue
        x = edges[stack[:-1]]
        edges[stack[:-1]] = x + share
        edges[stack] = x
        frames.append(_Frame(stack, x, share, sizes[stack]))
    return frames


def _change(share: float) -> str:
    """The colour class of a change."""
    kind = next((kind for kind, least in _CHANGES.items() if abs(share) >= least), "equal")
    return kind if share > 0 else kind.replace("more", "less")


def _kind(stack: Stack) -> str:
    """The colour class of a stack's last frame."""
    if len(stack) <= 1:
        return "kind" if stack else "all"
    if "::" in stack[-1].partition(" ")[0]:
        return "torch"
    return "ours" if "(kvcache/" in stack[-1] else "python"
