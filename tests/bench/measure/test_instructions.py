"""Counting instructions: what it needs, and that a count is exact."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvbench.measure.instructions import (
    Counter,
    NotCountedError,
    build_requests,
    read_totals,
    require_tools,
    valgrind_command,
)

# Two forks of one process, whose second one does a little more.
PROGRAM = """
import os, sys
from pathlib import Path
from kvbench.measure.instructions import Counter

counter = Counter(Path(sys.argv[1]))

def work(times):
    for _ in range(times):
        for _ in range(100):  # numbers that Python keeps, so that it allocates none
            pass

def counted():
    for name, times in {"once": 100, "again": 100, "more": 101}.items():
        work(times)
        counter.count(lambda: work(times))
        counter.write_total(name)

def fork():
    process = os.fork()
    if not process:
        counter.translate(counted)
        os._exit(0)
    return process

processes = [fork(), fork()]
for process in processes:
    os.waitpid(process, 0)
print(*processes)
"""


class TestTools:
    def test_nothing_is_said_where_all_are_there(self):
        require_tools(which=lambda tool: f"/usr/bin/{tool}", platform="linux")

    @pytest.mark.parametrize("missing", ["valgrind", "cc"])
    def test_a_missing_tool_is_named_with_what_to_do(self, missing):
        with pytest.raises(NotCountedError, match=f"no {missing} on PATH: install it"):
            require_tools(which=lambda tool: None if tool == missing else tool, platform="linux")

    def test_other_systems_cannot(self):
        with pytest.raises(NotCountedError, match="Linux only"):
            require_tools(which=str, platform="darwin")

    def test_a_compiler_that_fails_is_told_with_its_words(self, tmp_path):
        cc = tmp_path / "bin" / "cc"
        cc.parent.mkdir()
        cc.write_text("#!/bin/sh\necho 'fatal error: callgrind.h' >&2; exit 1\n")
        cc.chmod(0o755)
        with pytest.raises(NotCountedError, match=r"cc could not compile .* callgrind\.h"):
            build_requests(tmp_path, {"PATH": str(cc.parent)})


class TestTotals:
    def test_they_are_read_by_their_names_of_one_process(self, tmp_path):
        for process, name, total in [(7, "store", 12), (7, "slide x", 13), (8, "store", 99)]:
            text = (
                f"version: 1\ndesc: Trigger: Client Request: {name}\n\nevents: Ir\nsummary: {total}\n\nfn=(1) f\n1 2\n"
            )
            (tmp_path / f"callgrind.out.{process}.{total}").write_text(text)
        (tmp_path / "callgrind.out.7").write_text("version: 1\ndesc: Trigger: Program termination\n\nsummary: 5\n")
        assert read_totals(tmp_path, 7) == {"store": 12, "slide x": 13}


class TestCounter:
    @pytest.fixture
    def requests(self, tmp_path):
        try:
            require_tools()
        except NotCountedError as error:
            pytest.skip(str(error))
        return build_requests(tmp_path)

    def test_a_process_that_nothing_counts_is_told_so(self, requests):
        with pytest.raises(NotCountedError, match="not run by valgrind"):
            Counter(requests)

    def test_counts_repeat_and_one_per_cent_more_is_seen(self, requests, tmp_path):
        command = [sys.executable, "-c", PROGRAM, str(requests)]
        path = {"PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            valgrind_command(tmp_path, command), env=os.environ | path, capture_output=True, text=True, check=True
        )
        one, other = (read_totals(tmp_path, int(each)) for each in done.stdout.split())
        assert one == other
        assert abs(one["again"] / one["once"] - 1) < 0.002
        assert 1.004 < one["more"] / one["again"] < 1.012
