import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from kvcache import __version__
from kvcache.trace import machine as machine_module
from kvcache.trace.machine import Machine


def test_describes_this_machine():
    machine = Machine.describe()
    assert machine.processor
    assert 1 <= machine.cores <= os.cpu_count()
    assert machine.threads == torch.get_num_threads()
    assert machine.accelerator is None
    assert machine.python_version == platform.python_version()
    assert machine.torch_version == torch.__version__
    assert machine.kvcache_version == __version__


def test_survives_json():
    machine = Machine.describe()
    assert Machine(**json.loads(json.dumps(machine.to_dict()))) == machine


def test_whether_the_library_is_compiled(monkeypatch):
    monkeypatch.setattr(machine_module, "_COMPILED", ("json",))
    assert Machine.describe().kvcache_compiled
    monkeypatch.setattr(machine_module, "_COMPILED", ("json", "kvcache.no_such_module"))
    assert not Machine.describe().kvcache_compiled


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A library that is imported from another folder, which is the root of nothing yet."""
    monkeypatch.setattr(machine_module, "_NOTE", "kvcache.no_such_module")
    monkeypatch.setattr(machine_module, "__file__", str(tmp_path / "kvcache" / "trace" / "machine.py"))
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
    assert Machine.describe().kvcache_commit == commit
    (elsewhere / "file").write_text("two")
    assert Machine.describe().kvcache_commit == f"{commit}-dirty"
    assert f"kvcache {__version__} {commit[:8]}-dirty, " in str(Machine.describe())


def test_no_commit_where_there_is_no_checkout_or_no_git(elsewhere, monkeypatch):
    assert Machine.describe().kvcache_commit is None
    (elsewhere / ".git").write_text("gitdir: /nowhere")
    assert Machine.describe().kvcache_commit is None
    monkeypatch.setenv("PATH", "")
    assert Machine.describe().kvcache_commit is None


def test_the_commit_that_a_wheel_was_built_from(elsewhere, monkeypatch):
    monkeypatch.setattr(machine_module, "_NOTE", "built_from_of_a_test")
    note = ModuleType("built_from_of_a_test")
    note.COMMIT = "0123456789abcdef"
    monkeypatch.setitem(sys.modules, "built_from_of_a_test", note)
    assert Machine.describe().kvcache_commit == "0123456789abcdef"


def test_in_words():
    machine = Machine("A CPU", 2, 1, None, "Linux 6", "3.11", "2.4", "0.1", True, None)
    assert str(machine) == "A CPU, 2 cores, 1 torch threads; Python 3.11, torch 2.4; kvcache 0.1, compiled; Linux 6"
    assert "; kvcache 0.1, not compiled; " in str(replace(machine, kvcache_compiled=False))
    assert "; A GPU; " in str(replace(machine, accelerator="A GPU"))
