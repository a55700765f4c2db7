"""Text from files is text: each hostile one is driven through every command and page, and looked at."""

import csv
import html
import io
import json
import os
import subprocess
from xml.etree import ElementTree

import pytest
from asv_files import write_results
from click.testing import CliRunner
from reliability.hostile_texts import HOSTILE, NAMES, is_shown_as_it_is
from rich.console import Console
from training_files import backend, results

from kvbench.cli import console, main
from kvbench.cli.gate_table import gate_markdown, gate_table
from kvbench.gate.session import GateReport
from kvbench.history.commits import read_commits
from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.profile.chrome_trace import fold_stacks, format_stacks
from kvbench.profile.flame_graph import render_flame_graph
from kvbench.report import Inputs, build_report
from kvbench.results.decode import write_json
from kvbench.text import clean, in_markdown, in_spreadsheet
from kvbench.trace.limits import NAME_LENGTH
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvbench.trace.writer import TraceWriter

TOGETHER = "".join(text for text in HOSTILE.values() if len(text) < 100)
each_text = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
# All at once, and the slow way: one by one.
each_page = pytest.mark.parametrize(
    "text", [TOGETHER, *(pytest.param(text, id=kind, marks=pytest.mark.full) for kind, text in HOSTILE.items())]
)
FEW = ("tag", "closing-tag", "environment", "newline", "byte", "equals")


def run(*arguments):
    shown = CliRunner().invoke(main, [str(each) for each in arguments])
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    assert is_shown_as_it_is(shown.output), shown.output
    return shown


def unfolded(output):
    """A table's cells without the ends of their lines."""
    return "".join(output.split())


def history(folder, text):
    """asv's results in which everything that a file names is that text."""
    values = {(f"x.track_{text}", text): [1.0, 2.0], (f"x.track_{text}", "new"): [1.0, 2.0]}
    return write_results(folder, values, units={f"x.track_{text}": text}, machine="vm", param=text)


class TestResults:
    @each_text
    def test_the_table(self, tmp_path, text, monkeypatch):
        monkeypatch.setenv("COLUMNS", "4000")
        shown = run("results", history(tmp_path, text))
        assert shown.exit_code == 0
        heading = clean(f"track_{text}").rpartition(".")[2].removeprefix("track_")
        assert unfolded(f"{heading}, {clean(text)}, by {clean(text)}") in unfolded(shown.stdout)
        assert any(unfolded(line).startswith(unfolded(clean(text))) for line in shown.stdout.splitlines())

    @each_text
    def test_the_csv(self, tmp_path, text):
        run("results", history(tmp_path / "results", text), "--csv", tmp_path / "out.csv")
        with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {row["unit"] for row in rows} == {in_spreadsheet(clean(text))}
        assert [float(row["value"]) for row in rows] == [1.0, 1.0, 2.0, 2.0]
        assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]

    @each_text
    def test_the_machine(self, tmp_path, text):
        folder = history(tmp_path, "new")
        for file in folder.glob("vm/*-env.json"):
            content = json.loads(file.read_text())
            content["params"]["machine"] = text
            file.write_text(json.dumps(content))
        for option in ([], ["--durations"]):
            assert unfolded(clean(text)) in unfolded(run("results", folder, *option).stdout)


class TestNames:
    """Of files and folders: named in full, whatever was measured."""

    @pytest.mark.parametrize(
        "name",
        [pytest.param(name, id=kind, marks=() if kind in FEW else pytest.mark.slow) for kind, name in NAMES.items()],
    )
    def test_a_trace_from_its_making_to_its_pages(self, tmp_path, name):
        folder = tmp_path / f"d{name}"
        folder.mkdir(parents=True)
        trace = folder / f"t{name}.parquet"
        made = run("trace", "synthesize", trace, "--geometry", "cartpole", "--searches", 1)
        if name == NAMES["byte"]:
            assert (made.exit_code, list(folder.iterdir())) == (1, [])
            assert "not UTF-8" in made.stderr
            return
        assert f"t{clean(name)}.parquet: " in made.stdout
        assert "sound" in run("trace", "check", trace).stdout
        json.loads(run("trace", "show", trace).stdout)
        replayed = run("replay", trace, "--repetitions", 0, "--backend", "new", "--json", folder / f"r{name}.json")
        assert replayed.exit_code == 0
        assert unfolded(clean(trace.name)) in unfolded(replayed.stdout)
        assert unfolded(f"r{clean(name)}.json") in unfolded(replayed.stderr)
        content = json.loads((folder / f"r{name}.json").read_text())
        assert content["replays"][0]["trace"]["file"] == trace.name
        pages = run("report", "--replay", folder / f"r{name}.json", "--output", folder / f"h{name}")
        assert unfolded(f"h{clean(name)}/index.html: ") in unfolded(pages.stdout + " ")

    @pytest.mark.parametrize(
        "command",
        [
            ("results",), ("report", "--replay"), ("report", "--benchmark"), ("report", "--training"),
            ("report", "--profile"), ("report", "--trace"), ("report", "--results"), ("trace", "show"),
            ("trace", "check"), ("trace", "recover"),
            ("replay",), ("profile",), ("report", "--trace", "x", "--since"), ("gate", "--base"),
            ("gate", "--thresholds"), ("--no-such",), ("no-such",), ("trace",), ("replay", "x", "--capacity"),
            ("search", "--geometry"), ("record", "lightzero", "--output", "x", "--config"),
            ("train", "lightzero", "--env"),
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_what_is_not_there(self, tmp_path, monkeypatch, command):
        monkeypatch.chdir(tmp_path)
        for name in NAMES.values():
            shown = run(*command, f"no{name}")
            assert shown.exit_code in (1, 2), name
            assert shown.stderr.splitlines()[-1].startswith("Error: "), shown.stderr
            shown = run(*command[:-1], f"{command[-1]}{name}")
            assert shown.exit_code in (1, 2)


class TestTraces:
    @each_page
    def test_what_a_header_says(self, tmp_path, text):
        run("trace", "synthesize", tmp_path / "trace.parquet", "--geometry", "cartpole", "--searches", 1)
        reader = TraceReader(tmp_path / "trace.parquet")
        source = {text: text, "library": text, "environment": text, "version": text}
        name = text[:NAME_LENGTH]
        header = TraceHeader(reader.header.geometry, source, True, recorder=name, created=name)
        with TraceWriter(tmp_path / "hostile.parquet", header) as writer:
            for event in reader.events():
                writer.add(**event)
        run("trace", "show", tmp_path / "hostile.parquet")
        run("trace", "check", tmp_path / "hostile.parquet")
        out = tmp_path / "out.json"
        shown = run("replay", tmp_path / "hostile.parquet", "--repetitions", 0, "--backend", "new", "--json", out)
        assert shown.exit_code == 0
        run("report", "--replay", out, "--trace", tmp_path / "hostile.parquet", "--output", tmp_path / "html")
        check_pages(tmp_path / "html", text)


def check_pages(folder, text):
    """All pages and their data: the text is in them, as text."""
    pages = [path.read_text(encoding="utf-8") for path in folder.glob("*.html")]
    assert pages
    for page in pages:
        assert is_shown_as_it_is(page)
        assert page.count("<script") == page.count("</script>")
        assert "<img" not in page
        assert "onerror=alert(1)>" not in page.replace("&gt;", "")
    assert any(
        html.escape(clean(text), quote=False) in page.replace("&#34;", '"').replace("&#39;", "'") for page in pages
    )
    for path in folder.glob("data/*.csv"):
        content = path.read_text(encoding="utf-8")
        assert is_shown_as_it_is(content.replace("\r\n", "\n"))
        for cell in (cell for row in csv.reader(io.StringIO(content)) for cell in row):
            assert in_spreadsheet(cell) == cell


class TestPages:
    @each_page
    def test_of_a_history(self, tmp_path, text):
        folder = history(tmp_path / "results", text)
        build_report(Inputs(results=folder, repository=tmp_path), tmp_path / "html")
        check_pages(tmp_path / "html", text)

    @each_page
    def test_of_benchmarks_and_trainings(self, tmp_path, text):
        stats = {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5, "rounds": 6}
        benchmarks = {
            "machine_info": {"cpu": {"brand_raw": text}, "python_version": text}, "datetime": text,
            "commit_info": {"id": text}, "benchmarks": [{"name": text, "stats": stats}],
        }  # fmt: skip
        (tmp_path / "b.json").write_text(json.dumps(benchmarks))
        write_json(tmp_path / "t.json", results(backend("a"), backend("b", ended_with="x", first_difference="y")))
        training = json.loads((tmp_path / "t.json").read_text()) | {
            "environment": text, "library": text, "command": [text], "machine": {text: text}, "packages": {text: text},
            "settings": {text: {text: [text]}},
        }  # fmt: skip
        for run_ in training["backends"]:
            run_ |= {"name": f"{run_['name']}{text}", "ended_with": text, "first_difference": text}
        (tmp_path / "t.json").write_text(json.dumps(training))
        files = ["--benchmark", tmp_path / "b.json", "--training", tmp_path / "t.json", "--repository", tmp_path]
        run("report", *files, "--output", tmp_path / "html", "--command", f"kvbench {text}")
        check_pages(tmp_path / "html", text)


class TestCommits:
    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "cp1252"])
    def test_subjects_and_authors_in_another_encoding(self, tmp_path, encoding):
        environment = {**os.environb, b"GIT_AUTHOR_NAME": "Zoë Grüß".encode(encoding)}
        environment |= {b"GIT_COMMITTER_NAME": b"c", b"GIT_AUTHOR_EMAIL": b"e", b"GIT_COMMITTER_EMAIL": b"e"}

        def git(*arguments):
            subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, env=environment)

        git("init", "--quiet")
        for declared in (("-c", f"i18n.commitEncoding={encoding}"), ()):
            git(*declared, "commit", "--quiet", "--allow-empty", "-m", "größer: naïve".encode(encoding))
        git("commit", "--quiet", "--allow-empty", "-m", "last")
        git("config", "i18n.logOutputEncoding", "latin-1")
        found = read_commits(tmp_path).known
        assert [(each.author, each.subject) for each in found] == [
            ("Zoë Grüß", "größer: naïve"), ("Zoë Grüß", "größer: naïve"), ("Zoë Grüß", "last"),
        ]  # fmt: skip

    @each_text
    def test_subjects(self, tmp_path, text):
        if "\ud800" in text:
            return  # no bytes are a lone surrogate
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        for command in (["init", "--quiet"], [*identity, "commit", "--quiet", "--allow-empty", "-m", f"s{text}"]):
            subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
        (commit,) = read_commits(tmp_path).known
        assert is_shown_as_it_is(commit.subject)
        assert commit.subject.startswith("s")


class TestGate:
    @each_text
    def test_verdicts(self, text):
        report = GateReport([Row(text, text, Verdict.FAILED, reason=text), Row(text, text, Verdict.GONE)], 2, 1.0)
        file = io.StringIO()
        Console(file=file, width=2000).print(gate_table(text, report))
        assert is_shown_as_it_is(file.getvalue())
        assert unfolded(clean(text)) in unfolded(file.getvalue()) or "\n" in text
        lines = gate_markdown(text, report).splitlines()
        assert is_shown_as_it_is("".join(lines))
        assert [line.count("|") - line.count("\\|") for line in lines if line.startswith("|")] == [7] * 4
        assert "<script" not in "".join(lines).replace("\\<", "")

    def test_what_markdown_would_obey_is_escaped(self):
        assert in_markdown("a_b") == "a_b"
        assert in_markdown("operation[lookup]") == "operation[lookup]"
        assert in_markdown("[x](y) _z_ <b> `c` a|b") == r"[x]\(y) \_z\_ \<b\> \`c\` a\|b"


class TestProfiles:
    @each_text
    def test_frames(self, text):
        call = {"ph": "X", "pid": 1, "tid": 1, "ts": 0.0, "dur": 9.0, "cat": "user_annotation", "name": "store"}
        calls = [call, call | {"cat": "python_function", "name": f"{text}.py(1): f", "ts": 1.0, "dur": 2.0}]
        stacks = fold_stacks(calls, ["store"])
        assert len(format_stacks(stacks).splitlines()) == len(stacks)
        drawn = render_flame_graph(stacks, clean(text), "")
        ElementTree.fromstring(drawn)
        assert is_shown_as_it_is(drawn)

    @pytest.mark.slow
    def test_names(self, tmp_path):
        for name in ("a[/red]", "job[py311]", "=é$x$"):
            folder = tmp_path / name
            folder.mkdir(parents=True)
            run("trace", "synthesize", folder / "t.parquet", "--geometry", "cartpole", "--searches", 1)
            shown = run("profile", folder / "t.parquet", "--searches", 1, "--backend", "new", "--output", folder / "p")
            assert shown.exit_code == 0
            assert f"{clean(name)}/p/profile.json: all of these" in shown.stdout
            run("report", "--profile", folder / "p", "--output", folder / "html")


class TestBars:
    @each_text
    def test_descriptions(self, text, monkeypatch):
        file = io.StringIO()
        monkeypatch.setattr(console, "STDERR", Console(file=file, force_terminal=True, width=1000, color_system=None))
        with console.progress_bar() as progress:
            progress.add_task(clean(text))
        assert clean(text).strip() in file.getvalue()


def test_numbers_stay_numbers_in_a_spreadsheet():
    for value in (-1.5, "-1.5", "+2", "-1e-9", "1,5", "-", "", None, True):
        assert in_spreadsheet(value) == value
    for text in ("=1", "+a", "-a", "@a", "\ta", "\ra", "-1+1"):
        assert in_spreadsheet(text) == f"'{text}"
