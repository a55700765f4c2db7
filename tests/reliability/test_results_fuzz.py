"""Mutated files and command lines: no traceback, a documented exit code, one clear line, in bounded time and memory.

``KVBENCH_FUZZ=10000 pytest tests/reliability/test_results_fuzz.py -m ""`` draws so many inputs for each reader.
"""

import contextlib
import json
import os
import resource
import signal
import tempfile
from pathlib import Path
from random import Random

import click
import pytest
from asv_files import write_results
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reliability.documents import (
    BENCHMARKS,
    DESCRIBED,
    GATE,
    HEADER,
    PROFILE,
    REPLAYS,
    RESULT,
    SEARCH,
    TOML,
    TRAINING,
    asv_folder,
)  # fmt: skip
from reliability.hostile_texts import is_shown_as_it_is
from reliability.mutated import hostile_texts, mutated_bytes, mutated_json

from kvbench.cli import main
from kvbench.errors import KvbenchError
from kvbench.gate.thresholds import Thresholds, ThresholdsError
from kvbench.history.commits import Commits
from kvbench.history.series import read_history
from kvbench.judge.change_points import judge_history
from kvbench.replay.settings import CapacityError, parse_capacity
from kvbench.report.input_files import read_benchmarks, read_replays
from kvbench.report.training import read_training
from kvbench.results.asv import load_durations
from kvbench.results.decode import LeftOut, ResultsError, read_json
from kvbench.results.gate import GateResults
from kvbench.results.profile import INDEX, read_profile_index
from kvbench.results.search import SearchResults
from kvbench.text import clean_lines
from kvbench.trace.schema import TraceHeader

SHORT = 50
EXAMPLES = int(os.environ.get("KVBENCH_FUZZ", SHORT))
EXIT_CODES = {0, 1, 2, 3}  # 3: of the gate
LONGEST = 60  # seconds for one input
MOST_MEMORY = 1 << 30  # bytes that all inputs together may add


def examples(share=1.0):
    return settings(
        max_examples=max(5, int(EXAMPLES * share)),
        derandomize=EXAMPLES == SHORT,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="module")
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MOST_MEMORY


@contextlib.contextmanager
def in_time():
    def late(number, frame):
        raise TimeoutError(f"longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(*arguments, cwd=None):
    with in_time(), contextlib.chdir(cwd or "."):
        shown = CliRunner().invoke(main, [str(each) for each in arguments])
    if shown.exception is not None and not isinstance(shown.exception, SystemExit):
        raise shown.exception
    assert shown.exit_code in EXIT_CODES
    assert is_shown_as_it_is(shown.output.replace("\n\t", "\n")), shown.output  # click lists choices so
    if shown.exit_code in (1, 2):
        last = [line for line in shown.stderr.splitlines() if line.startswith("Error: ")]
        assert len(last) == 1, shown.stderr
    return shown


def write(folder, content, name="file.json"):
    path = Path(folder) / name
    path.write_bytes(content)
    return path


def refused(kind, read):
    """What the error says; None where there was none."""
    try:
        read()
    except kind as error:
        message = clean_lines(str(error))  # as the command does
        return message if message.count("\n") == 0 else "more than one line"
    return None


class TestReaders:
    """Each reads, or refuses in one line."""

    @examples()
    @given(mutated_json(RESULT))
    def test_asv_results(self, content):
        with tempfile.TemporaryDirectory() as folder, in_time():
            asv_folder(folder, content, None)
            left_out = LeftOut()
            history = read_history(folder, Commits(), left_out)
            assert {1.0, 2.0} <= {value for each in history.series for value in each.values}  # the other commits
            judge_history(history, Commits())
            load_durations(folder, left_out)
            assert all(map(is_shown_as_it_is, left_out.lines))

    @examples()
    @given(mutated_json(DESCRIBED))
    def test_asv_benchmarks(self, content):
        with tempfile.TemporaryDirectory() as folder, in_time(), contextlib.suppress(ResultsError):
            read_history(asv_folder(folder, None, content), Commits(), LeftOut())

    @pytest.mark.parametrize(
        ("base", "read"),
        [
            (REPLAYS, read_replays), (BENCHMARKS, read_benchmarks), (TRAINING, read_training),
            (GATE, lambda path: read_json(path, GateResults, "a test")),
            (SEARCH, lambda path: read_json(path, SearchResults, "a test")),
        ],
        ids=["replays", "benchmarks", "training", "gate", "search"],
    )  # fmt: skip
    def test_json(self, base, read):
        @examples()
        @given(mutated_json(base))
        def check(content):
            with tempfile.TemporaryDirectory() as folder, in_time():
                path = write(folder, content)
                message = refused(ResultsError, lambda: read(path))
                assert message is None or message.startswith(f"{path}: ")

        check()

    @examples()
    @given(mutated_json(PROFILE))
    def test_profiles(self, content):
        with tempfile.TemporaryDirectory() as folder, in_time():
            write(folder, b"<svg", "flame.svg")
            write(folder, content, INDEX)
            with contextlib.suppress(ResultsError, OSError):  # the command makes one line of either
                read_profile_index(folder)

    @examples()
    @given(mutated_bytes(TOML))
    def test_thresholds(self, content):
        with in_time():
            message = refused(ThresholdsError, lambda: Thresholds.parse(content.decode("utf-8", "replace"), "t"))
            assert message is None or message.startswith("t: ")

    @examples()
    @given(mutated_json(HEADER))
    def test_headers_of_traces(self, content):
        with in_time(), contextlib.suppress(ValueError):
            TraceHeader.from_json(content).schema()


def extreme_numbers(base, seed):
    """Some numbers, or all, are replaced by the ends of their types."""
    random = Random(seed)
    share = random.choice([0.05, 0.3, 1.0])

    def changed(value, name=""):
        if isinstance(value, dict):
            kept = ("schema_version", "version", "date", "geometry")
            return {key: each if key in kept else changed(each) for key, each in value.items()}
        if isinstance(value, list):
            return [changed(each) for each in value]
        if isinstance(value, bool) or not isinstance(value, int | float) or random.random() > share:
            return value
        whole = [0, -1, 1, 2, 3, 2**62, -(2**62)]
        return random.choice(whole if isinstance(value, int) else [*map(float, whole), 1e308, -1e308, 5e-324])

    return json.dumps(changed(base)).encode()


class TestCommands:
    @pytest.mark.slow
    @examples(0.1)
    @given(st.integers(0, 2**32))
    def test_report_of_extreme_numbers(self, seed):
        bases = (RESULT, REPLAYS, BENCHMARKS, TRAINING)
        result, replays, benchmarks, training = (extreme_numbers(base, seed) for base in bases)
        with tempfile.TemporaryDirectory() as folder:
            files = {
                "--results": asv_folder(Path(folder) / "results", result, None),
                "--replay": write(folder, replays, "r.json"), "--benchmark": write(folder, benchmarks, "b.json"),
                "--training": write(folder, training, "t.json"),
            }  # fmt: skip
            for option, path in files.items():
                shown = run("report", option, path, "--output", f"{folder}/html", "--repository", folder)
                assert shown.exit_code == 0 or option == "--replay"

    def test_a_figure_of_numbers_that_no_axis_spans(self, tmp_path):
        write_results(tmp_path / "results", {("x.track_a", "new"): [1e308, 2.0, -1e308]})
        shown = run("report", "--results", tmp_path / "results", "--output", tmp_path / "html")
        assert shown.exit_code == 0

    @examples(0.4)
    @given(mutated_json(RESULT), st.sampled_from([(), ("--durations",), ("--csv", "out.csv")]))
    def test_results(self, content, options):
        with tempfile.TemporaryDirectory() as folder:
            shown = run("results", asv_folder(folder, content, None), *options, cwd=folder)
            assert shown.exit_code == 0

    @examples(0.1)
    @given(
        mutated_json(RESULT),
        mutated_json(REPLAYS),
        mutated_json(BENCHMARKS),
        mutated_json(TRAINING),
        mutated_json(PROFILE),
    )
    def test_report(self, result, replays, benchmarks, training, profile):
        with tempfile.TemporaryDirectory() as folder:
            write(folder, b"<svg", "flame.svg")
            files = {
                "--results": asv_folder(Path(folder) / "results", result, None),
                "--replay": write(folder, replays, "r.json"), "--benchmark": write(folder, benchmarks, "b.json"),
                "--training": write(folder, training, "t.json"), "--profile": write(folder, profile, INDEX).parent,
            }  # fmt: skip
            for option, path in files.items():
                run("report", option, path, "--output", f"{folder}/html", "--repository", folder)
            for page in Path(folder).glob("html/**/*.*"):
                assert is_shown_as_it_is(page.read_bytes().decode().replace("\r\n", "\n"))

    def test_traces(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("traces")
        run("trace", "synthesize", folder / "t.parquet", "--geometry", "cartpole", "--searches", 1)

        @examples(0.2)
        @given(mutated_bytes((folder / "t.parquet").read_bytes()))
        def check(content):
            path = write(folder, content, "mutated.parquet")
            for command in (("show",), ("check",)):
                run("trace", *command, path)

        check()


def commands(group=main, path=()):
    """Every command with its options."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = list(commands())
NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "-1",
        "007",
        "1e3",
        "2.5",
        "nan",
        "inf",
        "-0",
        str(2**31),
        str(2**63),
        "9" * 5000,
        "\N{ARABIC-INDIC DIGIT THREE}",
    ]
)


def argument(text):
    """What the operating system can hand to a program, of a text."""
    try:
        return os.fsdecode(os.fsencode(text.replace("\0", "")))
    except UnicodeEncodeError:
        return "text"


ARGUMENTS = st.one_of(hostile_texts, st.sampled_from(["trace.parquet", "results", "."])).map(argument)


@st.composite
def command_lines(draw):
    path, command = draw(st.sampled_from(COMMANDS))
    words = list(path)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words += draw(st.lists(ARGUMENTS, max_size=2 if parameter.nargs == -1 else 1))
        elif draw(st.integers(0, 2)) == 0 or (parameter.required and draw(st.integers(0, 3))):
            words.append(draw(st.sampled_from(parameter.opts)))
            if not parameter.is_flag:
                choices = (
                    list(parameter.type.choices) if isinstance(parameter.type, click.Choice) else ["default", "recur=5"]
                )
                words.append(draw(st.one_of(st.sampled_from(choices), st.sampled_from(choices), NUMBERS, ARGUMENTS)))
    if draw(st.integers(0, 9)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(ARGUMENTS))
    return words


@pytest.fixture
def nothing_is_measured(monkeypatch):
    def stop(*args, **settings):
        raise KvbenchError("here it would measure")

    for name in (
        "kvbench.cli.search._Run", "kvbench.cli.record.record_model", "kvbench.cli.record.record_run",
        "kvbench.cli.train.run.train", "kvbench.gate.processes.GateFixture", "kvbench.cli.replay.Replay",
        "kvbench.cli.profile._write", "kvbench.cli.trace.write_synthetic_trace",
    ):  # fmt: skip
        monkeypatch.setattr(name, stop)


def test_every_number_of_a_command_line_is_bounded():
    ranges = [
        (path, each.opts[0], each.type)
        for path, command in COMMANDS
        for each in command.params
        if each.type in (click.INT, click.FLOAT) or isinstance(each.type, click.IntRange)
    ]
    assert len(ranges) > 20
    assert [each for *each, kind in ranges if getattr(kind, "max", None) is None] == []


@pytest.mark.parametrize(
    "text", ["1" + "0" * 9 + "1", "9" * 30, "recur=2000000000GB", "init=1,recur=" + "9" * 5000, "9/8", "1/" + "9" * 30]
)
def test_capacities_are_bounded(text):
    with pytest.raises(CapacityError, match=r"at most|give 'default'"):
        parse_capacity(text)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("Unable to allocate 8 TiB"), RuntimeError("CPU: can't allocate memory: 8 bytes\nat")],
)
def test_too_little_memory_is_one_line(monkeypatch, error):
    def stop(*args, **settings):
        raise error

    monkeypatch.setattr("kvbench.cli.search._Run", stop)
    shown = run("search", "--geometry", "cartpole", "--searches", 1)
    assert shown.exit_code == 1
    assert shown.stderr.count("\n") == 1
    assert "not memory enough" in shown.stderr


def test_command_lines(tmp_path_factory, nothing_is_measured):
    folder = tmp_path_factory.mktemp("lines")
    asv_folder(folder / "results")

    @examples()
    @given(command_lines())
    def check(words):
        run(*words, cwd=folder)

    check()
