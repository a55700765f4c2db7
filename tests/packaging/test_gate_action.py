"""The composite action that runs the gate and posts what it found: each of its steps as bash runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "gate" / "action.yml"
CONTENT = YAML(typ="safe").load(ACTION)
STEPS = {step["name"]: step for step in CONTENT["runs"]["steps"]}
MEASURE, REPLAY, WRITE, POST, FAIL = STEPS
BASE = "413d2c78692d1eaad59d20782fa25db32a087b38"
GATE = {
    "base": BASE, "machine": {}, "pairs": 5, "seconds": 1.0,
    "rows": [{"benchmark": "test_a", "metric": "bytes_copied", "verdict": "worse", "base": 1, "head": 2}],
}  # fmt: skip
# What stands for kvbench and for gh notes its arguments, and does as it is told.
KVBENCH = """#!/bin/bash
printf '%s\\n' "$*" >> "$RUNNER_TEMP/calls"
if [ "$1" = comment ]; then exec "$PYTHON" -m kvbench "$@"; fi
while [ $# -gt 0 ]; do if [ "$1" = --json ] && [ -n "$RESULT" ]; then cp "$RESULT" "$2"; fi; shift; done
exit "${EXITS:-0}"
"""
GH = """#!/bin/bash
printf '%s\\n' "$*" >> "$RUNNER_TEMP/calls"
if [ -n "$REFUSES" ]; then exit 1; fi
case "$*" in *--paginate*) printf '%s' "$FOUND";; esac
"""


class Job:
    """A job's folder, and its steps one by one."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in (("kvbench", KVBENCH), ("gh", GH)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def run(self, name, **values):
        """Run a step, as GitHub does; ``values`` are of its environment."""
        step = STEPS[name]
        assert {*values} <= {*step.get("env", ())} | {"RESULT", "EXITS", "FOUND", "REFUSES"}
        environment = {
            **dict.fromkeys(step.get("env", ()), ""), **values,
            "RUNNER_TEMP": str(self.folder), "PYTHON": sys.executable,
            "GITHUB_OUTPUT": str(self.folder / "output"), "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, cwd=self.folder)

    @property
    def calls(self):
        return (self.folder / "calls").read_text().splitlines() if (self.folder / "calls").exists() else []

    @property
    def outputs(self):
        return dict(line.split("=", 1) for line in (self.folder / "output").read_text().splitlines())


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.fixture
def result(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(GATE))
    return str(tmp_path / "result.json")


def test_it_fits_githubs_schema():
    schema = ["check-jsonschema", "--builtin-schema", "vendor.github-actions", str(ACTION)]
    script = "import sys; from check_jsonschema import main; sys.argv[:] = sys.argv[1:]; main()"
    pytest.importorskip("check_jsonschema")
    done = subprocess.run([sys.executable, "-c", script, *schema], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_expression_is_a_part_of_a_script():
    """GitHub pastes it in before bash reads it: the name of a branch would be run."""
    for step in STEPS.values():
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
        assert all(re.fullmatch(r"\$\{\{ .+ \}\}", each) for each in step.get("env", {}).values())


def test_only_what_posts_has_the_token():
    assert [name for name, step in STEPS.items() if "token" in str(step.get("env"))] == [POST]


def test_what_steps_and_outputs_refer_to_is_there():
    known = {step["id"] for step in STEPS.values() if "id" in step}
    text = ACTION.read_text()
    assert {*re.findall(r"steps\.(\w+)\.outputs", text)} <= known
    assert {*re.findall(r"inputs\.(\w+)", text)} == {*CONTENT["inputs"]}


def test_the_gate_runs_against_the_target_branch_or_what_is_asked_for(job, result):
    for base, against in (("", "origin/main"), ("HEAD~2", "HEAD~2")):
        done = job.run(MEASURE, BASE=base, TARGET="main", ARGUMENTS="--no-times -k store", RESULT=result, EXITS="1")
        assert done.returncode == 0, done.stderr  # the last step fails: the comment comes first
        assert job.outputs["code"] == "1"
        assert Path(job.outputs["json"]).is_file()
        assert job.calls[-1].startswith(f"gate --base {against} --json {job.outputs['json']} --summary ")
        assert job.calls[-1].endswith("summary --no-times -k store")


def test_a_branchs_name_is_no_command(job):
    job.run(MEASURE, TARGET="a;touch b $(touch c)", ARGUMENTS="`touch d` *")
    assert "--base origin/a;touch b $(touch c) " in job.calls[0]
    assert job.calls[0].endswith("`touch d` *")
    assert not [name for name in "bcd" if (job.folder / name).exists()]


@pytest.mark.slow
def test_the_comment_is_written_posted_and_fails(job, result):
    job.run(MEASURE, TARGET="main", RESULT=result, EXITS="1")
    done = job.run(WRITE, PAGES="https://example.org/pages")
    assert done.returncode == 0, done.stderr
    text = Path(job.outputs["comment"]).read_text()
    assert text.startswith("<!-- kvbench comment -->\n### Worse\n")
    assert "(https://example.org/pages)" in text


def test_without_results_there_is_no_comment(job):
    done = job.run(WRITE)
    assert (done.returncode, job.calls) == (0, [])
    assert "::warning::" in done.stdout


@pytest.mark.parametrize(
    ("found", "method", "place"),
    [("", "POST", "repos/o/r/issues/7/comments"), ("11\n22\n", "PATCH", "repos/o/r/issues/comments/11")],
)
def test_a_newer_comment_replaces_the_older(job, found, method, place):
    comment = job.folder / "comment.md"
    comment.write_text("<!-- kvbench comment -->\ntext")
    done = job.run(POST, REPOSITORY="o/r", NUMBER="7", COMMENT=str(comment), FOUND=found)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    asked, posted = job.calls
    assert 'startswith("<!-- kvbench comment -->")' in asked
    assert posted == f"api --silent --method {method} {place} -F body=@{comment}"


def test_a_token_that_may_only_read_is_a_warning(job):
    comment = job.folder / "comment.md"
    comment.write_text("<!-- kvbench comment -->\n")
    done = job.run(POST, REPOSITORY="o/r", NUMBER="7", COMMENT=str(comment), REFUSES="yes")
    assert done.returncode == 0
    assert "::warning::the comment could not be posted" in done.stdout


@pytest.mark.parametrize(
    ("code", "replayed", "exits", "said"),
    [
        ("0", "", 0, ""), ("1", "", 1, ""), ("2", "0", 2, ""), ("3", "0", 0, "::warning::"), ("0", "1", 1, "::error::"),
        ("3", "1", 1, "::error::"),
    ],
)  # fmt: skip
def test_what_is_worse_fails_and_what_is_undecided_warns(job, code, replayed, exits, said):
    done = job.run(FAIL, CODE=code, REPLAYED=replayed)
    assert done.returncode == exits
    assert said in done.stdout


def test_traces_are_replayed_with_their_options(job, result):
    done = job.run(REPLAY, ARGUMENTS="a.parquet --searches 12", RESULT=result)
    assert done.returncode == 0
    assert job.calls == [f"replay a.parquet --searches 12 --json {job.folder}/replay.json"]
