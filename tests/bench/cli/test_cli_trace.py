"""``kvbench trace`` and the command group."""

import json
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.trace.journal import journal_path
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import NO_ENV, ROOT_SIMULATION, TraceHeader
from kvbench.trace.writer import TraceWriter
from kvcache import __version__
from kvcache.geometry import GEOMETRIES, Geometry

TINY = Geometry("tiny", 2, 2, 16, 8, 2, 6, "absolute")


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def synthesize(path, *options):
    return invoke("trace", "synthesize", path, "--geometry", "cartpole", "--searches", 1, *options)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.parquet"
    assert synthesize(path).exit_code == 0
    return path


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["record", "replay", "trace"]),
        (["trace"], ["check", "recover", "show", "synthesize"]),
        (["trace", "show"], ["header", "digest"]),
        (["trace", "check"], ["check the rules of the format"]),
        (["trace", "recover"], ["journal"]),
        (["trace", "synthesize"], ["--geometry", "--seed", "--transpositions", *GEOMETRIES]),
        (["record"], ["lightzero"]),
    ],
)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(command, words, option):
    result = invoke(*command, option)
    assert result.exit_code == 0
    for word in words:
        assert word in result.stdout


def test_version():
    assert invoke("--version").stdout == f"kvbench, version {__version__}\n"


def test_as_a_module():
    command = [sys.executable, "-m", "kvbench", "trace", "check", "/nowhere/at/all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: /nowhere/at/all: no such file\n"


class TestShow:
    def test_header_events_and_digest(self, trace):
        shown = json.loads(invoke("trace", "show", trace).stdout)
        reader = TraceReader(trace)
        assert shown["geometry"] == GEOMETRIES["cartpole"].to_dict()
        assert shown["synthetic"] is True
        assert shown["source"]["seed"] == 0
        assert (shown["events"], shown["digest"]) == (reader.rows, reader.digest())

    def test_a_file_that_is_no_trace(self, tmp_path):
        (tmp_path / "text").write_text("text")
        result = invoke("trace", "show", tmp_path / "text")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {tmp_path / 'text'}: not a Parquet file\n"


class TestCheck:
    def test_sound_traces(self, trace):
        result = invoke("trace", "check", trace, trace)
        assert result.exit_code == 0
        assert result.stdout == f"{trace}: {TraceReader(trace).rows} events, sound\n" * 2

    def test_stops_at_a_bad_one(self, trace, tmp_path):
        bad = tmp_path / "bad.parquet"
        with TraceWriter(bad, TraceHeader.create(TINY, {}, synthetic=True)) as writer:
            writer.add("clear", "recur", NO_ENV, 0, 0, ROOT_SIMULATION)
            writer.add("lookup", "node", 5, 1, 0, 0, key=1)
        result = invoke("trace", "check", trace, bad)
        assert result.exit_code == 1
        assert result.stdout.count("sound") == 1
        assert result.stderr == f"Error: {bad}: row 1: env 5: the header has environments 0 to 1\n"

    def test_nothing_to_check(self):
        assert invoke("trace", "check").exit_code == 2


class TestRecover:
    def test_makes_the_trace_of_a_journal(self, tmp_path):
        path = tmp_path / "trace.parquet"
        writer = TraceWriter(path, TraceHeader.create(TINY, {}, synthetic=True))
        writer.add("clear", "recur", NO_ENV, 0, 0, ROOT_SIMULATION)
        writer.abandon()
        result = invoke("trace", "recover", path)
        assert (result.exit_code, result.stdout) == (0, f"{path}: 1 events recovered\n")
        assert TraceReader(path).check() == 1
        assert not journal_path(path).exists()

    def test_without_a_journal(self, tmp_path):
        result = invoke("trace", "recover", tmp_path / "trace")
        assert result.exit_code == 1
        assert "there is no journal trace.journal to recover" in result.stderr

    def test_refuses_to_overwrite(self, trace):
        journal_path(trace).write_bytes(b"")
        result = invoke("trace", "recover", trace)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {trace} exists: move it away")


class TestSynthesize:
    def test_says_what_it_made(self, tmp_path):
        path = tmp_path / "new" / "trace.parquet"
        result = synthesize(path, "--seed", 7)
        assert result.exit_code == 0
        events = TraceReader(path).check()
        assert result.stdout == f"{path}: {events} events, synthetic, cartpole, seed 7\n"

    def test_options_reach_the_header(self, tmp_path):
        path = tmp_path / "trace.parquet"
        options = ("--seed", 7, "--actions", 2, "--episode-length", 9, "--transpositions", 0.25)
        assert synthesize(path, *options).exit_code == 0
        source = TraceReader(path).header.source
        named = ("seed", "num_actions", "episode_length", "transpositions", "searches")
        assert [source[name] for name in named] == [7, 2, 9, 0.25, 1]

    def test_a_fill_decides_about_episodes(self, tmp_path):
        path = tmp_path / "trace.parquet"
        result = synthesize(path, "--fill", "sliding")
        assert result.exit_code == 0
        assert result.stdout.endswith("synthetic, cartpole, seed 0, sliding\n")
        assert TraceReader(path).header.source["fill"] == "sliding"

    @pytest.mark.parametrize("option", [("--episode-length", 9), ("--clear-ended",)])
    def test_a_fill_leaves_no_choice_of_episodes(self, tmp_path, option):
        result = synthesize(tmp_path / "trace.parquet", "--fill", "full", *option)
        assert result.exit_code == 2
        assert f"--fill decides about episodes: leave {option[0]} out" in result.stderr

    def test_refuses_to_overwrite(self, trace):
        before = trace.read_bytes()
        result = synthesize(trace)
        assert result.exit_code == 1
        assert result.stderr.strip() == f"Error: {trace} exists: choose another name, traces are not overwritten"
        assert trace.read_bytes() == before

    def test_names_a_journal_that_is_left(self, tmp_path):
        path = tmp_path / "trace.parquet"
        TraceWriter(path, TraceHeader.create(TINY, {}, synthetic=True)).abandon()
        result = synthesize(path)
        assert result.exit_code == 1
        assert re.search(r"journal is left .*kvbench trace recover", result.stderr)

    @pytest.mark.parametrize("under", ["file", "file/sub"])
    def test_a_path_below_a_file(self, tmp_path, under):
        (tmp_path / "file").write_text("precious")
        result = synthesize(tmp_path / under / "trace.parquet")
        assert result.exit_code == 1
        assert result.stderr.strip().startswith("Error: ")
        assert isinstance(result.exception, SystemExit)

    @pytest.mark.parametrize(
        "options",
        [
            ["--geometry", "chess"],
            ["--searches", "0"],
            ["--actions", "0"],
            ["--episode-length", "0"],
            ["--transpositions", "1.1"],
        ],
    )
    def test_bad_options_leave_no_file(self, tmp_path, options):
        result = synthesize(tmp_path / "trace", *options)
        assert result.exit_code == 2
        assert options[0] in result.stderr
        assert list(tmp_path.iterdir()) == []

    def test_the_geometry_must_be_named(self, tmp_path):
        result = invoke("trace", "synthesize", tmp_path / "trace")
        assert result.exit_code == 2
        assert "--geometry" in result.stderr
