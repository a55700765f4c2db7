"""Python's functions have names under callgrind: each gets what it executes itself, under who called it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvbench.measure.callgrind_stacks import OPTIONS, read_stacks
from kvbench.measure.instructions import (
    NotCountedError,
    build_requests,
    find_dumps,
    require_tools,
    valgrind_command,
)
from kvbench.measure.python_frames import build_frames

PROGRAM = """
import json, os, sys
from pathlib import Path
from kvbench.measure.instructions import Counter
from kvbench.measure.python_frames import PythonFrames

def inner(times):
    for _ in range(times):
        pass

def outer():
    for _ in range(5):
        inner(200)
    return max([1, 2], key=lambda number: inner(20) or number)

counter, frames = Counter(Path(sys.argv[1])), PythonFrames(Path(sys.argv[2]))
outer()
counter.translate(lambda: (counter.count(outer), counter.write_total("outer")))
print(os.getpid(), json.dumps(frames.names([sys.argv[3]])))
"""


@pytest.mark.slow
def test_each_python_function_is_a_frame(tmp_path):
    try:
        require_tools()
    except NotCountedError as error:
        pytest.skip(str(error))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = str(Path(__file__).parents[3])
    command = [sys.executable, str(program), str(build_requests(tmp_path)), str(build_frames(tmp_path)), root]
    path = {"PYTHONPATH": root, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        valgrind_command(tmp_path, command, OPTIONS), env=os.environ | path, capture_output=True, text=True, check=True
    )
    process, _, names = done.stdout.partition(" ")
    dump, total = find_dumps(tmp_path, int(process))["outer"]
    stacks = read_stacks(dump, json.loads(names))
    assert sum(stacks.values()) == total
    short = {tuple(frame.partition(" ")[0] for frame in stack): count for stack, count in stacks.items()}
    inner, by_key = short["outer", "inner"], short["outer", "outer.<locals>.<lambda>", "inner"]
    assert 15 < inner / by_key < 26  # 1,000 turns of a loop, and 40
    assert short["outer",] < inner
