"""What no recorder wrote gets one clear line from every command that reads traces, at once and in little memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hostile_traces import STRANGE, TOO_LARGE, UNSOUND, made, many_groups, many_rows

from kvbench.cli import main
from kvbench.trace import parquet

ROOT = Path(__file__).resolve().parents[3]
REPLAY = ["replay", "--repetitions", "0", "--backend", "new", "--backend", "legacy"]


def run(*arguments):
    """Exit code and the error on stderr; never a traceback, never more than a line."""
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    _, error, line = result.stderr.partition("Error: ")
    assert len(line.splitlines()) == result.exit_code == bool(error)
    return result.exit_code, error + line.strip()


@pytest.mark.parametrize("name", UNSOUND)
def test_check_and_replay_refuse_the_same_in_one_line(tmp_path, name):
    path = UNSOUND[name](tmp_path / "bad.parquet")
    checked = run("trace", "check", path)
    assert checked[0] == 1
    assert checked[1].startswith(f"Error: {path}: ")
    assert len(checked[1]) < 600
    assert run(*REPLAY, path) == run(*REPLAY, "--searches", "1", path) == checked
    run("trace", "show", path)


@pytest.mark.parametrize(
    "name", ["env_num 10^9", "header deep", "event batch", "column twice", "no events", "kind long"]
)
def test_so_do_profile_and_report(tmp_path, name):
    path = UNSOUND[name](tmp_path / "bad.parquet")
    checked = run("trace", "check", path)
    assert run("profile", path, "--output", tmp_path / "profile") == checked
    assert run("report", "--trace", path, "--output", tmp_path / "pages") == checked


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_no_machine_can_hold_is_sound_and_not_replayed(tmp_path, name):
    path = TOO_LARGE[name](tmp_path / "large.parquet")
    assert run("trace", "check", path)[0] == 0
    for command in (REPLAY, [*REPLAY, "--capacity", "recur=9"], ["profile", "--output", tmp_path / "profile"]):
        code, line = run(*command, path)
        assert code == 1
        assert line.startswith("Error: a replay of large.parquet needs about ")
        assert "GB are free: give a smaller --capacity" in line
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("name", STRANGE)
def test_what_is_strange_but_sound_is_replayed(tmp_path, name):
    path = STRANGE[name](tmp_path / "strange.parquet")
    assert run("trace", "check", path) == run("trace", "show", path) == (0, "")
    assert run(*REPLAY, path) == run(*REPLAY, path, "--json", tmp_path / "numbers.json") == (0, "")


@pytest.mark.slow
def test_a_file_that_is_small_and_holds_many_rows_is_not_read(tmp_path):
    assert_is_not_read(many_rows(20_000_000)(tmp_path / "bomb.parquet"))


def test_a_file_that_is_small_and_holds_many_row_groups_is_not_read(tmp_path, monkeypatch):
    path = many_groups(1_000)(tmp_path / "bomb.parquet")
    monkeypatch.setattr(parquet, "FOOTER_BYTES", parquet.FOOTER_BYTES // 40)  # writing 40 times as many takes long
    assert_is_not_read(path)


def assert_is_not_read(path):
    assert run("trace", "check", path)[0] == run("trace", "show", path)[0] == 1
    assert run("trace", "check", path) == run(*REPLAY, path)


MEASURED = """
import sys, time
from pathlib import Path
from click.testing import CliRunner
from kvbench.cli import main
from kvbench.trace import reader

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024

paths = sorted(Path(sys.argv[1]).glob("*.parquet"))
for path in Path(sys.argv[1], "strange").iterdir():  # what a first replay imports and allocates
    CliRunner().invoke(main, ["replay", "--repetitions", "0", str(path)])
before, longest = peak(), 0.0
for path in paths:
    for command in (["trace", "check"], ["trace", "show"], ["replay", "--repetitions", "0"]):
        start = time.perf_counter()
        CliRunner().invoke(main, [*command, str(path)])
        longest = max(longest, time.perf_counter() - start)
print(peak() - before, longest)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_hostile_traces_take_little_memory_and_time(tmp_path):
    (tmp_path / "measured.py").write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n{MEASURED}"
    )
    (tmp_path / "strange").mkdir()
    assert len([*made(tmp_path / "strange", STRANGE), *made(tmp_path, UNSOUND)]) > 90
    command = [sys.executable, "measured.py", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 150
    assert seconds < 10
