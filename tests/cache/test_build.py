"""Which build of the library is in use."""

import subprocess
import sys
from types import ModuleType

import pytest

from kvcache import build, build_info


def test_whether_the_library_is_compiled(monkeypatch):
    monkeypatch.setattr(build, "_COMPILED", ("json",))
    assert build_info().compiled
    monkeypatch.setattr(build, "_COMPILED", ("json", "kvcache.no_such_module"))
    assert not build_info().compiled


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A library that is imported from another folder, which is the root of nothing yet."""
    monkeypatch.setattr(build, "_NOTE", "kvcache.no_such_module")
    monkeypatch.setattr(build, "__file__", str(tmp_path / "kvcache" / "build.py"))
    return tmp_path


def test_the_commit_of_a_checkout_and_whether_it_was_changed(elsewhere):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        return subprocess.run(("git", *who, "-C", elsewhere, *arguments), check=True, capture_output=True, text=True)

    git("init")
    (elsewhere / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD").stdout.strip()
    assert build_info().commit == commit
    (elsewhere / "file").write_text("two")
    assert build_info().commit == f"{commit}-dirty"


def test_no_commit_where_there_is_no_checkout_or_no_git(elsewhere, monkeypatch):
    assert build_info().commit is None
    (elsewhere / ".git").write_text("gitdir: /nowhere")
    assert build_info().commit is None
    monkeypatch.setenv("PATH", "")
    assert build_info().commit is None


def test_the_commit_that_a_wheel_was_built_from(elsewhere, monkeypatch):
    monkeypatch.setattr(build, "_NOTE", "built_from_of_a_test")
    note = ModuleType("built_from_of_a_test")
    note.COMMIT = "0123456789abcdef"
    monkeypatch.setitem(sys.modules, "built_from_of_a_test", note)
    assert build_info().commit == "0123456789abcdef"
