"""A flame graph as one SVG file that needs nothing else: no network, no server, no other file.

PyPI has no kept-up renderer of folded stacks (pyflamegraph wraps a Perl script of 2015, the others draw their own
profiler's data or a terminal); speedscope is an application of its own, and opens the folded stacks beside this file.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from kvbench.profile.chrome_trace import Stack, Stacks

__all__ = ["render_flame_graph"]

_ROW = 18  # pixels, as below
_HEAD = 78
_LEAST_SHARE = 0.0005  # of all time: a narrower box would be less than a pixel wide
_LEGEND = {"kind": "operation of the cache", "ours": "kvcache", "python": "other Python", "torch": "torch"}


class _Frame(NamedTuple):
    """One box: its left edge and its width are shares of the picture's, its time is in nanoseconds with callees."""

    name: str
    kind: str
    level: int
    x: float
    share: float
    time: int


def render_flame_graph(stacks: Stacks, title: str, note: str) -> str:
    """The picture: callers above callees, as wide as the time they took, the longest on the left.

    Hovering shows a frame's name, time and share; a click widens it, and one on the topmost shows all again. Works in
    light and dark and at any width. Frames of less than a two-thousandth of the time are left out. ``title`` and
    ``note`` are the first lines.
    """
    frames = _frames(stacks)
    environment = Environment(
        loader=PackageLoader("kvbench.profile"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("flame.svg").render(
        title=title, note=note, legend=_LEGEND, frames=frames, row=_ROW, head=_HEAD,
        depth=1 + max((frame.level for frame in frames), default=0),
    )  # fmt: skip


def _frames(stacks: Stacks) -> list[_Frame]:
    """All frames that can be seen, each behind its caller, and the longest callee of a caller first."""
    times: Counter[Stack] = Counter()
    for stack, time in stacks.items():
        for level in range(len(stack) + 1):
            times[stack[:level]] += time
    whole = times[()]
    frames = []
    edges: dict[Stack, float] = {(): 0.0}  # of each frame: where its next callee begins

    def order(stack: Stack) -> list[tuple[int, str]]:
        return [(-times[stack[: level + 1]], name) for level, name in enumerate(stack)]

    for stack in sorted(times, key=order):
        share = times[stack] / whole if whole else 0.0
        if share < _LEAST_SHARE:
            continue
        x = edges[stack[:-1]]
        edges[stack[:-1]] = x + share
        edges[stack] = x
        frames.append(_Frame(stack[-1] if stack else "all", _kind(stack), len(stack), x, share, times[stack]))
    return frames


def _kind(stack: Stack) -> str:
    """The colour class of a stack's last frame."""
    if len(stack) <= 1:
        return "kind" if stack else "all"
    if "::" in stack[-1].partition(" ")[0]:
        return "torch"
    return "ours" if "(kvcache/" in stack[-1] else "python"
