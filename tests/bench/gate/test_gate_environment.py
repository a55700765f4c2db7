"""What the code of another commit gets to see of the environment."""

import ast
import os

import pytest
from gate.tiny_repository import GATES, commit, edit, make_repository

from kvbench.gate.environment import environment
from kvbench.gate.processes import GateFixture

SECRETS = {
    "GITHUB_TOKEN": "s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret", "PIP_INDEX_URL": "https://me:s3cret@index",
    "HTTPS_PROXY": "http://me:s3cret@proxy", "WANDB_API_KEY": "s3cret", "SSH_AUTH_SOCK": "/s3cret",
    "MY_SETTING": "s3cret",
}  # fmt: skip
NEEDED = {"CC": "gcc", "CFLAGS": "-O1", "LC_ALL": "C.UTF-8", "OMP_PROC_BIND": "true", "CUDA_VISIBLE_DEVICES": ""}
SHOW = "import os, pathlib\npathlib.Path('seen.txt').write_text(repr(dict(os.environ)))\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One whose build and whose benchmarks write down what they see."""
    for name, value in (SECRETS | NEEDED).items():
        monkeypatch.setenv(name, value)
    repository = make_repository(tmp_path / "repository")
    (repository / "setup.py").write_text(SHOW)
    (repository / "kvcache" / "fast.c").write_text("")
    edit(repository, GATES, "import kvcache\n", SHOW.replace("seen.txt", str(tmp_path / "measured.txt")))
    edit(repository, GATES, "import pytest\n", "import kvcache\nimport pytest\n")
    commit(repository)
    return repository


def seen_by(path):
    return ast.literal_eval(path.read_text())


@pytest.mark.parametrize("side", ["base", "head"])
def test_builds_and_measurements_get_what_they_need_and_no_secret(tmp_path, repository, side):
    fixture = GateFixture(repository, "HEAD", tmp_path / "libraries", "store")
    fixture.measure(side, 1, "metrics")
    for seen in (seen_by(fixture.sides[side] / "seen.txt"), seen_by(tmp_path / "measured.txt")):
        assert "s3cret" not in " ".join(seen.values())
        assert {name: seen[name] for name in ("PATH", "HOME") if name in os.environ} == {
            name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
        }
        assert {name: seen.get(name) for name in NEEDED} == NEEDED


def test_what_is_named_is_handed_over_too(tmp_path, repository):
    fixture = GateFixture(repository, "HEAD", tmp_path / "libraries", "store", ["MY_SETTING", "NOT_SET"])
    fixture.measure("base", 1, "metrics")
    for seen in (seen_by(fixture.sides["base"] / "seen.txt"), seen_by(tmp_path / "measured.txt")):
        assert seen["MY_SETTING"] == "s3cret"
        assert not (SECRETS.keys() - {"MY_SETTING"}) & seen.keys()
        assert "NOT_SET" not in seen


def test_a_star_is_no_name(monkeypatch):
    monkeypatch.setenv("MY_SETTING", "1")
    monkeypatch.setenv("LC_TIME", "C")
    assert environment()["LC_TIME"] == "C"
    assert "MY_SETTING" not in environment(["MY_*"])
