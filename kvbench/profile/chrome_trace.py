"""The trace file of a profiler, in Chrome's format: reading it, and folding its calls into stacks."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kvbench.text import clean

__all__ = ["Event", "Stack", "Stacks", "fold_stacks", "format_stacks", "read_chrome_trace"]

Event = dict[str, Any]
Stack = tuple[str, ...]  # outermost frame first
Stacks = Mapping[Stack, int]  # nanoseconds spent in a stack's last frame itself

_NANOSECONDS = 1000  # of Chrome's microseconds
# Where a frame's file is relative to; the profiler itself cuts off the folders that Python imports from.
_HOME = f"{Path(__file__).parents[2]}/"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PYTHON_FRAME = re.compile(r"(?P<file>.*)\((?P<line>\d+)\): (?P<function>.*)")
# The cost of recording a range is no part of its content.
_RECORDING = (
    "torch/autograd/profiler.py",
    "torch/profiler/",
    "profiler::_record_function",
    "<built-in method _record_function",
)


def read_chrome_trace(path: str | Path) -> list[Event]:
    """All events of a trace file, gzipped or not. Raises ValueError for what is none, and OSError."""
    data = Path(path).read_bytes()
    try:
        content = json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)
        events: list[Event] = content["traceEvents"]
    except (ValueError, KeyError, TypeError, EOFError, RecursionError, zlib.error) as error:
        raise ValueError(f"{path}: not a trace in Chrome's format: {error!r}") from None
    return events


def fold_stacks(events: Collection[Event], roots: Collection[str]) -> Counter[Stack]:
    """Nanoseconds that each stack's last frame took itself, without what it called.

    Args:
        events: of one trace; complete ones count ("ph" is "X"), and nest by their times, thread by thread.
        roots: names of the ranges that stacks begin with; what runs outside of them is left out.
    """
    threads: dict[Any, list[tuple[int, int, int, Event]]] = {}
    for number, event in enumerate(events):
        if event.get("ph") == "X" and event.get("cat") in ("python_function", "cpu_op", "user_annotation"):
            start = round(event["ts"] * _NANOSECONDS)
            end = start + round(event["dur"] * _NANOSECONDS)
            threads.setdefault((event.get("pid"), event.get("tid")), []).append((start, -end, number, event))
    stacks: Counter[Stack] = Counter()
    for calls in threads.values():
        _fold_thread(sorted(calls), frozenset(roots), stacks)
    return +stacks


def _fold_thread(calls: list[tuple[int, int, int, Event]], roots: frozenset[str], stacks: Counter[Stack]) -> None:
    open_calls: list[tuple[int, Stack | None]] = []  # (end, stack); None for the recording of a range
    for start, minus_end, _, event in calls:
        while open_calls and open_calls[-1][0] <= start:
            open_calls.pop()
        if not open_calls:
            # The call that opens a range begins before it and ends in it: outside of the roots nothing is looked at.
            if event["cat"] == "user_annotation" and event["name"] in roots:
                root = (event["name"],)
                stacks[root] -= minus_end + start
                open_calls.append((-minus_end, root))
            continue
        outer_end, outer = open_calls[-1]
        end = min(-minus_end, outer_end)
        stack = None if outer is None or event["name"].startswith(_RECORDING) else (*outer, _frame(event["name"]))
        if stack is not None:
            stacks[stack] += end - start
        if outer is not None:
            stacks[outer] -= end - start
        open_calls.append((end, stack))


def _frame(name: str) -> str:
    """``kvcache/pool.py(98): find`` as ``find (kvcache/pool.py:98)``; addresses would keep the same calls apart."""
    name = clean(_ADDRESS.sub("", name).removeprefix(_HOME).replace(";", ","))
    python = _PYTHON_FRAME.fullmatch(name)
    return f"{python['function']} ({python['file']}:{python['line']})" if python else name


def format_stacks(stacks: Stacks) -> str:
    """One line a stack, frames apart by semicolons, then nanoseconds: what speedscope and FlameGraph read."""
    return "".join(f"{';'.join(stack)} {time}\n" for stack, time in sorted(stacks.items()))
