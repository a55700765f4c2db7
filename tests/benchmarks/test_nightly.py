"""The night: newest commits first, within its time; one issue; and asv's own comparison, which nobody is offered."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nightly
import nightly_issue
import pytest
import run_asv

from kvbench.report.alarm import Alarm, alarm_markdown

ROOT = Path(__file__).resolve().parents[2]


class TestMeasuring:
    """Which commits a night measures, by a clock that is its own."""

    @pytest.fixture
    def clock(self):
        class Clock:
            now = 0.0

            def __call__(self):
                return self.now

        return Clock()

    def night(self, clock, costs, budget):
        """A night with commits that take so long each; a text is a fault, for which all the time goes."""
        allowed = {}

        def run(commit, seconds):
            allowed[commit] = seconds
            cost = costs[commit]
            clock.now += seconds if isinstance(cost, str) else cost
            return cost if isinstance(cost, str) else ""

        return nightly.measure(costs, run, budget, clock), allowed

    def test_commits_are_measured_until_another_would_not_fit(self, clock):
        night, allowed = self.night(clock, {"d": 30, "c": 40, "b": 20, "a": 20}, 130)
        assert night.seconds == {"d": 30, "c": 40, "b": 20}  # 40 s are left, and another may take 50
        assert (night.left, night.failed) == (["a"], {})
        assert allowed == {"d": 130, "c": 100, "b": 60}

    def test_it_ends_when_the_first_takes_all_the_time(self, clock):
        night, _ = self.night(clock, {"b": "too long", "a": 1}, 100)
        assert (night.seconds, night.failed, night.left) == ({}, {"b": "too long"}, ["a"])

    def test_what_asv_cannot_do_is_no_end_of_the_night(self, clock):
        def run(commit, seconds):
            clock.now += 1
            return "asv ended" if commit == "b" else ""

        night = nightly.measure("cba", run, 100, clock)
        assert (list(night.seconds), list(night.failed)) == (["c", "a"], ["b"])

    def test_the_next_night_goes_on_where_this_one_ended(self, tmp_path):
        (tmp_path / "bbbbbbbb-env.json").write_text("{}")
        names = [each * 40 for each in "cba"]
        assert nightly.missing_commits(names, tmp_path) == [names[0], names[2]]
        assert nightly.missing_commits(names, tmp_path / "nowhere") == names

    def test_the_summary_says_what_was_measured(self):
        night = nightly.Night({"c": 30.4}, {"b": "asv ended with exit code 1"}, ["a"])
        text = night.summary(lambda commit: f"{commit}: subject")
        assert text.splitlines()[0] == "### The night measured 1 commits, and left 1 for the next ones"
        assert "- c: subject: 30 s\n- **not measured** b: subject: asv ended with exit code 1\n" in text


ASV = """\
#!{python}
import json, os, pathlib, sys, time
pathlib.Path("asv.pid").write_text(str(os.getpid()))
with open("asv.log", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "run" and "hang" in os.environ.get("FAKE_ASV", ""):
    time.sleep(600)
if sys.argv[1] == "run":
    folder = pathlib.Path("benchmarks/results") / sys.argv[3]
    folder.mkdir(parents=True, exist_ok=True)
    if "empty" not in os.environ.get("FAKE_ASV", ""):
        (folder / f"{{sys.argv[-1][:8]}}-env.json").write_text("{{}}")
    sys.exit(int(os.environ.get("FAKE_ASV_CODE", 0)))
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of four commits, three of which change the library, and an asv that notes what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "asv").write_text(ASV.format(python=sys.executable))
    (tmp_path / "bin" / "asv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ASV_MACHINE", "github")
    repository = tmp_path / "repository"
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet", str(repository)],):
        subprocess.run(["git", *command], check=True)
    for place, name in enumerate(["kvcache/a.py", "kvcache/b.py", "README.md", "setup.py"]):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(name)
        for command in (["add", "--all"], ["commit", "--quiet", "-m", f"commit {place}"]):
            subprocess.run(["git", "-C", str(repository), *identity, *command], check=True)
    monkeypatch.chdir(repository)
    for name, value in {"ROOT": repository, "RESULTS": repository / "benchmarks" / "results", "GRACE": 2.0}.items():
        monkeypatch.setattr(nightly, name, value)
    return repository


def night(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["nightly.py", *arguments])
    return nightly.main()


def measured(checkout):
    commands = [json.loads(line) for line in (checkout / "asv.log").read_text().splitlines()]
    assert all(command[:2] in (["machine", "--yes"], ["run", "--machine"]) for command in commands)
    runs = [command[-1].removesuffix("^!") for command in commands if command[0] == "run"]
    log = subprocess.run(["git", "log", "--format=%H %s"], cwd=checkout, capture_output=True, text=True, check=True)
    subjects = dict(line.split(" ", 1) for line in log.stdout.splitlines())
    return [subjects[each] for each in runs]


class TestNight:
    def test_newest_first_what_changes_the_library_and_each_once(self, checkout, monkeypatch, tmp_path):
        summary = tmp_path / "summary.md"
        assert night(monkeypatch, "--commits", "2", "--summary", str(summary)) == 0
        assert measured(checkout) == ["commit 3", "commit 1"]
        assert "measured 2 commits, and left 0" in summary.read_text()
        assert night(monkeypatch, "--commits", "20") == 0
        assert measured(checkout) == ["commit 3", "commit 1", "commit 0"]

    @pytest.mark.parametrize(("new", "subject"), [(1, "commit 1"), (10, "commit 0")])
    def test_it_says_since_when_a_change_of_the_library_is_new(self, checkout, monkeypatch, tmp_path, new, subject):
        monkeypatch.setattr(nightly, "NEW", new)
        environment = tmp_path / "environment"
        night(monkeypatch, "--seconds", "0", "--environment", str(environment))
        name, _, commit = environment.read_text().strip().partition("=")
        shown = subprocess.run(
            ["git", "log", "-1", "--format=%s", commit], cwd=checkout, capture_output=True, text=True, check=True
        )
        assert (name, shown.stdout.strip()) == ("SINCE", subject)

    def test_failing_benchmarks_are_results(self, checkout, monkeypatch):
        monkeypatch.setenv("FAKE_ASV_CODE", "2")
        assert night(monkeypatch, "--commits", "1") == 0

    @pytest.mark.parametrize(("fault", "code"), [("", "1"), ("empty", "0")])
    def test_an_asv_that_fails_is_a_failing_night(self, checkout, monkeypatch, capsys, fault, code):
        monkeypatch.setenv("FAKE_ASV_CODE", code)
        monkeypatch.setenv("FAKE_ASV", fault)
        assert night(monkeypatch, "--commits", "2") == 1
        assert measured(checkout) == ["commit 3", "commit 1"]
        assert "**not measured** " in capsys.readouterr().out

    def test_an_asv_that_hangs_is_ended_with_the_night(self, checkout, monkeypatch, capsys):
        monkeypatch.setenv("FAKE_ASV", "hang")
        assert night(monkeypatch, "--seconds", "0.5") == 1
        assert measured(checkout) == ["commit 3"]
        assert "took more than the " in capsys.readouterr().out

    def test_a_night_that_is_ended_leaves_no_asv_behind(self, checkout):
        """What it wrote later would come while results are being saved."""
        code = (
            "import nightly, pathlib, sys; nightly.GRACE = 2.0; nightly.ROOT = pathlib.Path.cwd(); "
            "nightly.RESULTS = nightly.ROOT / 'benchmarks' / 'results'; sys.exit(nightly.main())"
        )
        own = {"PYTHONPATH": str(ROOT / "benchmarks"), "FAKE_ASV": "hang"}
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | own)
        try:
            for _ in range(200):
                if (checkout / "asv.log").exists() and '"run"' in (checkout / "asv.log").read_text():
                    break
                time.sleep(0.05)
            process.terminate()
            assert process.wait(timeout=10) == 1
        finally:
            process.kill()
        number = int((checkout / "asv.pid").read_text())
        assert not Path(f"/proc/{number}").exists()

    def test_without_asv_nothing_can_be_measured(self, checkout, monkeypatch, capsys):
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        assert night(monkeypatch) == 2
        assert "nothing can be measured: " in capsys.readouterr().err


class TestAsv:
    @pytest.mark.parametrize("command", ["compare", "continuous"])
    def test_its_comparison_is_refused_with_what_to_ask_instead(self, checkout, capsys, command):
        assert run_asv.main([command, "HEAD~1", "HEAD"]) == 2
        said = capsys.readouterr().err
        assert f"'asv {command}' is not offered" in said
        assert {"kvbench gate --base COMMIT", "kvbench bisect METRIC GOOD BAD"} <= set(re.split("  +", said))
        assert not (checkout / "asv.log").exists()

    @pytest.mark.parametrize(
        ("arguments", "command"),
        [
            ([], ["run", "--machine", "github", "HEAD^!"]),
            (["HEAD~3..HEAD"], ["run", "--machine", "github", "HEAD~3..HEAD"]),
            (
                ["--launch-method", "spawn", "HEAD^!"],
                ["run", "--machine", "github", "--launch-method", "spawn", "HEAD^!"],
            ),
            (["publish"], ["publish"]),
            (["show", "HEAD"], ["show", "--machine", "github", "HEAD"]),
        ],
    )
    def test_the_rest_is_asvs(self, checkout, arguments, command):
        assert run_asv.main(arguments) == 0
        lines = (checkout / "asv.log").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [["machine", "--yes", "--machine", "github"], command]

    def test_the_code_is_asvs(self, checkout, monkeypatch):
        monkeypatch.setenv("FAKE_ASV_CODE", "2")
        assert run_asv.main(["HEAD^!"]) == 2


def offered(name):
    """Whether a file is for people or for CI: what it says may be tried."""
    return name.endswith((".md", ".ini", ".yml", ".toml", ".json", ".ipynb", ".py")) and not name.startswith("tests/")


def test_nobody_is_sent_to_asvs_own_comparison():
    """It called 41 of 110 values of identical code worse: everything points to the gate."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    its_own = ("CHANGELOG.md", "benchmarks/run_asv.py", "SECURITY.md")  # this one names a file
    names = [each for each in listed.splitlines() if offered(each) and each not in its_own]
    assert len(names) > 200
    wrong = re.compile(r"asv[^\n]{0,40}[ \"'](compare|continuous)\b|\b(compare|continuous)\|")
    assert [name for name in names if wrong.search((ROOT / name).read_text())] == []


GH = """\
#!{python}
import json, pathlib, sys
state = pathlib.Path({state!r})
known = json.loads(state.read_text()) if state.exists() else {{"calls": [], "issues": []}}
arguments = sys.argv[1:]
text = sys.stdin.read() if "-" in arguments else ""
known["calls"].append([arguments[:2], text])
if arguments[:2] == ["issue", "list"]:
    state_asked = arguments[arguments.index("--state") + 1]
    print(json.dumps([each for each in known["issues"] if each["state"] == state_asked]))
elif arguments[:2] == ["issue", "create"]:
    known["issues"].append({{"number": 7, "state": "open", "body": text.replace("\\n", "\\r\\n")}})
    print("https://example.com/issues/7")
elif arguments[:2] == ["issue", "edit"]:
    known["issues"][0]["body"] = text
elif known["issues"] and known["issues"][0]["body"] == "refuse":
    sys.exit("HTTP 403")
state.write_text(json.dumps(known))
"""


class TestIssue:
    @pytest.fixture
    def calls(self, tmp_path, monkeypatch):
        """What gh was asked since the last time: of issues and comments."""
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "gh").write_text(GH.format(python=sys.executable, state=str(tmp_path / "state.json")))
        (tmp_path / "bin" / "gh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

        def since():
            file = tmp_path / "state.json"
            known = json.loads(file.read_text())
            found = [(call[1], text) for call, text in known["calls"] if call[1] in ("create", "edit", "comment")]
            file.write_text(json.dumps(known | {"calls": []}))
            return found[1:]  # the first makes the label

        return since

    def tell(self, tmp_path, monkeypatch, text):
        (tmp_path / "alarm.md").write_text(text)
        arguments = ["--link", "https://example.com/run/1", "--summary", str(tmp_path / "summary.md")]
        monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "alarm.md"), *arguments])
        return nightly_issue.main()

    def rows(self, *alarms):
        return alarm_markdown([Alarm(*each, "github", "a | subject") for each in alarms], "since v1")

    SLOWER = ("abc", "Operations.time", "geometry=pong", "+20.0 %")
    MORE = ("def", "Operations.bytes_copied", "geometry=pong", "+1.0 %")

    def test_one_issue_is_opened_and_then_updated(self, tmp_path, monkeypatch, calls, capsys):
        assert self.tell(tmp_path, monkeypatch, self.rows(self.SLOWER)) == 0
        ((what, text),) = calls()
        assert (what, text.splitlines()[0]) == ("create", "## 1 new regression since v1, at 1 commit.")
        assert self.tell(tmp_path, monkeypatch, self.rows(self.SLOWER)) == 0
        assert calls() == []
        assert self.tell(tmp_path, monkeypatch, self.rows(self.SLOWER, self.MORE)) == 0
        (edited, whole), (commented, comment) = calls()
        assert (edited, commented) == ("edit", "comment")
        assert "abc" in whole
        assert ("bytes_copied" in comment, "abc" in comment) == (True, False)
        assert "| commit | metric |" in comment
        assert comment.endswith("https://example.com/run/1")
        assert capsys.readouterr().out.splitlines()[1:] == ["issue 7 says all of it already", "updated issue 7"]

    def test_numbers_that_move_notify_nobody(self, tmp_path, monkeypatch, calls):
        """Medians do with each commit that is measured."""
        self.tell(tmp_path, monkeypatch, self.rows(self.SLOWER, self.MORE))
        calls()
        self.tell(tmp_path, monkeypatch, self.rows((*self.SLOWER[:3], "+19.8 %"), self.MORE))
        ((what, text),) = calls()
        assert what == "edit"
        assert "+19.8 %" in text

    @pytest.mark.parametrize(("later", "opened"), [([SLOWER], []), ([SLOWER, MORE], ["create"])])
    def test_what_was_closed_as_meant_opens_no_other(self, tmp_path, monkeypatch, calls, later, opened):
        self.tell(tmp_path, monkeypatch, self.rows(self.SLOWER))
        calls()
        state = json.loads((tmp_path / "state.json").read_text())
        state["issues"][0]["state"] = "closed"
        (tmp_path / "state.json").write_text(json.dumps(state))
        assert self.tell(tmp_path, monkeypatch, self.rows(*later)) == 0
        assert [what for what, _ in calls()] == opened

    def test_a_commits_subject_notifies_nobody(self, tmp_path, monkeypatch, calls):
        assert self.tell(tmp_path, monkeypatch, "| abc | thanks @everyone, closes #12 |\n") == 0
        ((_, text),) = calls()
        assert text.startswith("| abc | thanks @<!-- -->everyone, closes #<!-- -->12 |\n")

    @pytest.mark.parametrize("text", ["", " \n"])
    def test_nothing_new_is_nothing_to_tell(self, tmp_path, monkeypatch, text):
        monkeypatch.setenv("PATH", "")
        assert self.tell(tmp_path, monkeypatch, text) == 0

    def test_no_file_is_nothing_to_tell(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "alarm.md")])
        assert nightly_issue.main() == 0

    def test_a_text_that_is_too_long_is_cut_at_a_line(self, tmp_path, monkeypatch, calls):
        assert self.tell(tmp_path, monkeypatch, "- one line\n" * 10_000) == 0
        ((_, text),) = calls()
        assert len(text) < 65_536
        assert "- one line\n\nThere is more: see the report." in text

    def test_an_issue_that_cannot_be_written_fails_with_what_was_found(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("PATH", "")
        assert self.tell(tmp_path, monkeypatch, "- abc: time +20 %\n") == 1
        said = capsys.readouterr().err
        assert "the issue could not be written: " in said
        assert "abc: time +20 %" in said
        assert (tmp_path / "summary.md").read_text() == "- abc: time +20 %\n"
