"""Errors of the system are said in words: which file, what is wrong and what to do."""

import errno
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.errors import told
from kvbench.files import folder_whole_or_absent

TRACE = "benchmarks/traces/cartpole-lightzero-0.2.0-seed0.parquet"
OUTPUTS = {
    "a trace": ["trace", "synthesize", "{}", "--geometry", "cartpole", "--searches", "1"],
    "a recording": ["record", "synthetic-model", "--geometry", "cartpole", "--searches", "1", "--output", "{}"],
    "a journal": ["trace", "recover", "{}"],
    "a trace that is read": ["trace", "show", "{}"],
    "a replay": ["replay", TRACE, "--searches", "1", "--repetitions", "0", "--backend", "new", "--json", "{}"],
    "a profile": ["profile", TRACE, "--searches", "1", "--backend", "new", "--output", "{}"],
    "results": ["results", "{}"],
    "a table": ["results", "--csv", "{}"],
    "a gate": ["gate", "--summary", "{}"],
}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is where even root cannot write")
@pytest.mark.parametrize("place", ["/proc/none/x", "/proc/self/x"])
@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS)
def test_no_number_and_no_temporary_name(command, place):
    done = CliRunner().invoke(main, [each.format(place) for each in command])
    last = done.stderr.splitlines()[-1]
    assert done.exit_code in (1, 2)
    assert "Errno" not in done.stderr
    assert ".tmp" not in done.stderr
    assert "/proc" in last
    assert last.count(": ") >= 2


def test_a_temporary_name_is_that_of_the_file(tmp_path):
    with pytest.raises(OSError, match=r"x\.csv") as caught, folder_whole_or_absent(tmp_path / "pages") as beside:
        (beside / "none" / "x.csv").write_text("")
    assert str(beside) in str(caught.value)
    assert told(caught.value) == f"{tmp_path}/pages/none/x.csv: No such file or directory: name another file or folder"


def test_advice():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert told(full) == "No space left on device: make room and run this again"
    assert told(OSError("ours")) == told(ValueError("ours")) == "ours"
