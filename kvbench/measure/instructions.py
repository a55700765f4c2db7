"""Instructions that a call executes, counted by valgrind's callgrind: the same on a busy machine and on an idle one.

torch's ``Timer.collect_callgrind`` starts a process for every statement, and torch takes 13 s to import under valgrind.
Here one process counts many calls: valgrind translates what is not counted and no more, and writes one total a name.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kvbench.errors import KvbenchError

__all__ = [
    "Counter", "NotCountedError", "build_requests", "compile_library", "find_dumps", "read_totals", "require_tools",
    "valgrind_command",
]  # fmt: skip

# Requests of a program to the callgrind that runs it; they do nothing without one. Only the call is counted.
_REQUESTS = """
#include "callgrind.h"

extern void *PyObject_CallNoArgs(void *call);

int is_counted(void) { return RUNNING_ON_VALGRIND; }
void write_total(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }

/* From beginning to end within one call: callgrind loses count where it returns to a caller that it has not seen. */
void *translate(void *call) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    void *result = PyObject_CallNoArgs(call);
    CALLGRIND_STOP_INSTRUMENTATION;
    return result;
}

void *count(void *call) {
    CALLGRIND_TOGGLE_COLLECT;
    void *result = PyObject_CallNoArgs(call);
    CALLGRIND_TOGGLE_COLLECT;
    return result;
}
"""
_HEADER = Path("utils") / "benchmark" / "utils" / "valgrind_wrapper"  # in torch, which brings callgrind's
_DUMPS = "callgrind.out"
_HEAD = 4096  # bytes of a file of counts: its name and total are before the functions


class NotCountedError(KvbenchError):
    """Why no instructions can be counted here, and what to do."""


def require_tools(which: Callable[[str], str | None] = shutil.which, platform: str = sys.platform) -> None:
    """Raise NotCountedError where instructions cannot be counted."""
    if platform != "linux":
        raise NotCountedError("valgrind counts on Linux only")
    for tool, advice in {"valgrind": "apt install valgrind", "cc": "a C compiler"}.items():
        if which(tool) is None:
            raise NotCountedError(f"there is no {tool} on PATH: install it ({advice})")


def build_requests(folder: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Compile, in ``folder``, what a program asks callgrind with. Raises NotCountedError: the compiler failed."""
    found = importlib.util.find_spec("torch")
    roots = list(found.submodule_search_locations or ()) if found else []
    return compile_library(folder / "requests.c", _REQUESTS, [Path(root) / _HEADER for root in roots], environment)


def compile_library(
    path: Path, source: str, headers: Iterable[Path], environment: Mapping[str, str] | None = None
) -> Path:
    """Write C source to ``path``, and compile it beside it. Raises NotCountedError: the compiler failed."""
    path.write_text(source)
    library = path.with_suffix(".so")
    command = ["cc", "-shared", "-fPIC", "-O1", *(f"-I{each}" for each in headers), "-o", str(library), str(path)]
    own = None if environment is None else dict(environment)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise NotCountedError(f"cc could not compile {path.stem} for callgrind: {''.join(lines[:1])}")
    return library


def valgrind_command(folder: Path, command: list[str], options: Iterable[str] = ()) -> list[str]:
    """A Python command under callgrind, which writes its counts to ``folder``; nothing is counted until it asks."""
    return [
        "valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
        f"--callgrind-out-file={folder / _DUMPS}.%p", *options, *command,
    ]  # fmt: skip


class Counter:
    """Counts calls in a process that callgrind runs. Raises NotCountedError in another process."""

    def __init__(self, requests: Path) -> None:
        self._requests = ctypes.PyDLL(str(requests))
        for function in (self._requests.count, self._requests.translate):
            function.argtypes, function.restype = [ctypes.py_object], ctypes.py_object
        self._requests.write_total.argtypes = [ctypes.c_char_p]
        if not self._requests.is_counted():
            raise NotCountedError("this process is not run by valgrind")

    def translate(self, call: Callable[[], Any]) -> Any:
        """Call it; within this, calls can be counted. Everything else runs faster."""
        return self._requests.translate(call)

    def count(self, call: Callable[[], Any]) -> Any:
        """Call it, and add its instructions to the total."""
        return self._requests.count(call)

    def write_total(self, name: str) -> None:
        """Write what was counted since the last time, under a name."""
        self._requests.write_total(name.encode())


def read_totals(folder: Path, process: int) -> dict[str, int]:
    """The totals that a process wrote, by their names."""
    return {name: total for name, (_, total) in find_dumps(folder, process).items()}


def find_dumps(folder: Path, process: int) -> dict[str, tuple[Path, int]]:
    """The files of counts that a process wrote, with their totals, by their names."""
    found = {}
    for path in folder.glob(f"{_DUMPS}.{process}.*"):
        with path.open(errors="replace") as file:
            head = file.read(_HEAD)
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", head, re.MULTILINE)
        total = re.search(r"^(?:summary|totals): (\d+)", head, re.MULTILINE)
        if name and total:
            found[name[1]] = path, int(total[1])
    return found
