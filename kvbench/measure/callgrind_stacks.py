"""Instructions by stack, from what callgrind writes with ``--separate-callers``.

A stack has Python's functions, the library's own C functions and torch's operators. What lies between them (the
interpreter, memory, dispatch) counts for its caller.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kvbench.measure.python_frames import PREFIX

__all__ = ["OPTIONS", "read_stacks"]

DEEPEST = 400  # C functions of a stack
OPTIONS = (f"--separate-callers={DEEPEST}", "--dump-line=no", "--separate-threads=no")
_CALLER = "Counter.count (kvbench/measure/instructions.py)"  # calls what is counted
_NAME = re.compile(r"(fn|cfn|ob|cob)=\((\d+)\)(?: (.*))?")
_OPERATOR = re.compile(r"at::_ops::(\w+?)::(?:call|redispatch)\(")


def read_stacks(path: Path, python: Sequence[str], library: str = "kvcache") -> Counter[tuple[str, ...]]:
    """The instructions of each stack, outermost frame first, that its last frame executed itself.

    Args:
        path: what callgrind wrote.
        python: the Python functions by their numbers.
        library: the folder of the compiled modules whose functions are shown.
    """
    contexts, objects = _read_costs(path)
    stacks: Counter[tuple[str, ...]] = Counter()
    for context, cost in contexts.items():
        symbols = [each for each in context.split("'") if not each.isdigit()][::-1]
        frames = [_frame(symbol, objects.get(symbol, ""), python, library) for symbol in symbols]
        stack = [frame for frame in frames if frame]
        stacks[tuple(stack[stack.index(_CALLER) + 1 :] if _CALLER in stack else stack)] += cost
    return +stacks


def _read_costs(path: Path) -> tuple[Counter[str], dict[str, str]]:
    """The own instructions of each context ("f'its caller'..."), and the files that C functions are in."""
    names: dict[tuple[str, str], str] = {}
    costs: Counter[str] = Counter()
    objects: dict[str, str] = {}
    now = {"fn": "", "ob": ""}
    is_call = False
    with path.open(errors="replace") as file:
        for line in file:
            if named := _NAME.match(line):
                kind, number, name = named.groups()
                key = (kind[-2:], number)
                if name is not None:
                    names[key] = name
                if kind == "ob":
                    now["ob"] = names[key]
                elif kind == "fn":
                    now["fn"] = names[key]
                    objects[names[key].partition("'")[0]] = now["ob"]
            elif line.startswith("calls="):
                is_call = True  # the next line is what the callee executed
            elif now["fn"] and line[:1] in "0123456789+-*":
                if not is_call:
                    costs[now["fn"]] += int(line.split()[-1])
                is_call = False
    return costs, objects


def _frame(symbol: str, file: str, python: Sequence[str], library: str) -> str:
    """What a C function is called in a stack: nothing, if it is a part of its caller."""
    if symbol.startswith(PREFIX):
        number = int(symbol.removeprefix(PREFIX))
        return python[number] if number < len(python) else "other Python functions"
    if operator := _OPERATOR.match(symbol):
        return f"aten::{operator[1]}"
    folder, _, module = file.rpartition("/")
    if f"/{library}/" in f"{folder}/" and module.endswith(".so"):
        inner = f"{folder}/".partition(f"/{library}/")[2]
        return f"{symbol} ({library}/{inner}{module.partition('.')[0]}.c)"
    return ""
