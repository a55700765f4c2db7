"""CI's workflows: what they run is here and can be tried here, and the nightly job ends and keeps what it measured."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {path.name: YAML(typ="safe").load(path) for path in (ROOT / ".github" / "workflows").glob("*.yml")}
JOBS = [(name, job) for name, content in WORKFLOWS.items() for job in content["jobs"]]


def steps(workflow, job):
    return WORKFLOWS[workflow]["jobs"][job]["steps"]


def place(found, text):
    """Where the one step is that has a text in its command or in what it uses."""
    (number,) = [number for number, step in enumerate(found) if text in f"{step.get('run', '')} {step.get('uses', '')}"]
    return number


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_what_a_step_runs_is_here(workflow, job):
    environments = configparser.ConfigParser(interpolation=None)
    environments.read(ROOT / "tox.ini")
    known = {each.removeprefix("testenv:") for each in environments.sections()} | {"py"}
    for command in (step["run"] for step in steps(workflow, job) if "run" in step):
        for asked in re.findall(r"tox -e (\S+)", command):
            assert set(asked.split(",")) <= known
        for script in re.findall(r"python (\S+\.py)", command):
            assert (ROOT / script).is_file()


@pytest.mark.parametrize(("workflow", "job"), JOBS)
def test_every_job_has_a_limit(workflow, job):
    assert WORKFLOWS[workflow]["jobs"][job]["timeout-minutes"] <= 150


class TestNight:
    """The job that measures the history."""

    STEPS = steps("ci.yml", "history")

    def test_measuring_ends_before_its_step_and_that_before_the_job(self):
        step = self.STEPS[place(self.STEPS, "tox -e nightly")]
        words = shlex.split(step["run"])
        seconds = float(words[words.index("--seconds") + 1])
        whole = WORKFLOWS["ci.yml"]["jobs"]["history"]["timeout-minutes"]
        assert seconds <= (step["timeout-minutes"] - 5) * 60  # asv's environment is made meanwhile
        assert step["timeout-minutes"] <= whole - 45  # for the report, which measures as well

    def test_what_was_measured_is_kept_however_measuring_ends(self):
        restore, measure, save = (
            place(self.STEPS, each) for each in ("cache/restore@", "tox -e nightly", "cache/save@")
        )
        assert restore < measure < save
        assert save == measure + 1  # nothing that may fail comes between
        assert self.STEPS[save]["if"] == "always()"
        # A key is written once: with the night's own, and its attempt's, nothing is ever kept from being saved.
        keys = {self.STEPS[each]["with"]["key"] for each in (restore, save)}
        assert keys == {"asv-${{ github.run_id }}-${{ github.run_attempt }}"}
        assert self.STEPS[restore]["with"]["restore-keys"] == "asv-"
        machine = self.STEPS[measure]["env"]["ASV_MACHINE"]
        assert {self.STEPS[each]["with"]["path"] for each in (restore, save)} == {f"benchmarks/results/{machine}"}

    def test_what_is_new_fails_the_job_and_is_told_in_an_issue(self):
        report, issue = (place(self.STEPS, each) for each in ("tox -e report", "nightly_issue.py"))
        assert "--fail-on-new" in self.STEPS[report]["run"]
        alarm = re.search(r"--summary (\S+)", self.STEPS[report]["run"])[1]
        assert f"nightly_issue.py {alarm} " in self.STEPS[issue]["run"]
        # A night without news writes that to the file, and opens no issue.
        assert f"steps.{self.STEPS[report]['id']}.outcome == 'failure'" in self.STEPS[issue]["if"]
        assert report < issue
        assert WORKFLOWS["ci.yml"]["jobs"]["history"]["permissions"] == {"contents": "read", "issues": "write"}
        # Neither a measurement that fails nor the failing report keeps it from being told.
        assert all("!cancelled()" in self.STEPS[each]["if"] for each in (report, issue))

    def test_new_is_what_came_since_the_commit_that_the_night_names(self):
        """A change is seen three measured commits later: the last ten commits would hardly ever have one."""
        measure, report = (self.STEPS[place(self.STEPS, each)]["run"] for each in ("tox -e nightly", "tox -e report"))
        assert '--environment "$GITHUB_ENV"' in measure
        assert '--since "$SINCE"' in report

    def test_no_other_job_may_write_but_the_gates_comment(self):
        rights = [WORKFLOWS["ci.yml"]["permissions"], *(job.get("permissions", {}) for job in self.others())]
        written = [name for each in rights for name, right in each.items() if right != "read"]
        assert written == ["pull-requests"]
        assert WORKFLOWS["ci.yml"]["jobs"]["gate"]["permissions"]["pull-requests"] == "write"

    def others(self):
        return [job for name, job in WORKFLOWS["ci.yml"]["jobs"].items() if name != "history"]

    def test_its_commands_are_single_ones(self):
        """What takes a shell to understand is tried nowhere."""
        for command in (step["run"] for step in self.STEPS if "run" in step and "GITHUB_ENV" not in step["run"]):
            assert not re.search(r"[;|<>\n]|&&", command.strip())
