"""Where a checkout may lie: the gate compares the same folder of two commits, compiled alike, wherever that is."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from gate.tiny_repository import FILES, GATES, LIBRARY, THRESHOLDS, commit, edit, git, make_repository

from kvbench.cli import main
from kvbench.gate.processes import GateError, GateFixture, find_checkout
from kvbench.gate.thresholds import read_thresholds

STORE = "test_operation[store]"
# As this project's own: what is compiled is found from its sources, and a side without them has nothing to compile.
BUILD = """\
import pathlib
for source in pathlib.Path("kvcache").rglob("*.c"):
    source.with_suffix(".x.so").write_text("compiled")
"""


def put_project(folder):
    """The small project, with something to compile."""
    for path, text in {**FILES, "kvcache/parts/fast.c": "", "setup.py": BUILD}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def repository_with(root, folder):
    root.mkdir(parents=True, exist_ok=True)
    project = put_project(root / folder)
    git(root, "init", "--quiet")
    commit(root)
    return project


def at_the_root(tmp_path):
    return repository_with(tmp_path / "repository", ".")


def in_a_folder(tmp_path):
    (tmp_path / "mono").mkdir()
    (tmp_path / "mono" / "setup.py").write_text("raise SystemExit('of another project')\n")
    (tmp_path / "mono" / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    return repository_with(tmp_path / "mono", "libs/cache")


def with_spaces_and_brackets(tmp_path):
    return repository_with(tmp_path / "a b [1]", "c d::e [x-y]")


def in_a_linked_worktree(tmp_path):
    project = repository_with(tmp_path / "mono", "cache")
    git(project, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    return tmp_path / "linked" / "cache"


def as_a_submodule(tmp_path):
    project = repository_with(tmp_path / "project", ".")
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "--quiet")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(project), "parts/cache")
    commit(outer)
    return outer / "parts" / "cache"


def beside_a_submodule(tmp_path):
    other = make_repository(tmp_path / "other")
    project = repository_with(tmp_path / "mono", "cache")
    git(tmp_path / "mono", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "cache/other")
    commit(tmp_path / "mono")
    return project


PLACES = [at_the_root, in_a_folder, with_spaces_and_brackets, in_a_linked_worktree, as_a_submodule, beside_a_submodule]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
class TestPlaces:
    def test_a_commit_and_itself_are_compiled_and_measured_alike(self, tmp_path, place):
        project = place(tmp_path)
        fixture = GateFixture(project, "HEAD", tmp_path / "libraries", "store")
        assert fixture.compiled == {"base": ["kvcache.parts.fast"], "head": ["kvcache.parts.fast"]}
        base, head = (fixture.measure(side, 1, "both") for side in ("base", "head"))
        assert base == head
        assert base.metrics == {STORE: {"copies": 3}}
        assert list(base.places.values()) == [f"{GATES}::{STORE}"]
        assert fixture.measure("base", 2, "times", base.places.values()).times == base.times

    def test_each_side_has_its_own_files(self, tmp_path, place):
        project = place(tmp_path)
        edit(project, LIBRARY, '"store": 3', '"store": 4')
        with (project / THRESHOLDS).open("a") as file:
            file.write('[[meant]]\nmetric = "copies"\nabsolute = 1\nwhy = "padding"\n')
        fixture = GateFixture(project, "HEAD", tmp_path / "libraries")
        counted = {side: (fixture.sides[side] / LIBRARY).read_text() for side in fixture.sides}
        assert ('"store": 3' in counted["base"], '"store": 4' in counted["head"]) == (True, True)
        of_head, of_base = read_thresholds(fixture, Path(THRESHOLDS), pytest.fail)
        assert (len(of_head.meant), len(of_base.meant)) == (1, 0)
        commit(project)
        again = GateFixture(project, "HEAD", tmp_path / "again")
        of_head, of_base = read_thresholds(again, Path(THRESHOLDS), pytest.fail)
        assert of_head == of_base


@pytest.mark.parametrize("below", [".", "kvcache", "benchmarks/gates"])
def test_the_checkout_is_found_from_each_of_its_folders(tmp_path, below):
    project = in_a_folder(tmp_path)
    assert find_checkout(project / below) == project


def test_outside_of_a_checkout_the_folder_itself_is_named(tmp_path):
    assert find_checkout(tmp_path) == tmp_path


@pytest.mark.slow
def test_the_command_says_what_is_compiled(tmp_path, monkeypatch):
    """Also where it is run in a folder below the checkout."""
    monkeypatch.chdir(with_spaces_and_brackets(tmp_path) / "kvcache")
    done = CliRunner().invoke(main, ["gate", "--base", "HEAD", "--no-times", "-k", "store"])
    assert done.exit_code == 0, done.output
    assert "not worse: 1 same" in done.stdout
    assert done.stdout.strip().endswith("compiled on both sides: fast")


def test_variables_of_a_git_hook_lead_to_no_other_repository(tmp_path, monkeypatch):
    project, other = in_a_folder(tmp_path), make_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    fixture = GateFixture(project, "HEAD", tmp_path / "libraries")
    monkeypatch.undo()
    assert fixture.commit == git(project, "rev-parse", "HEAD")
    assert git(other, "rev-parse", "HEAD") != fixture.commit


class TestRefused:
    @pytest.fixture
    def project(self, tmp_path):
        return in_a_folder(tmp_path)

    def refusal(self, project, tmp_path):
        with pytest.raises(GateError) as raised:
            GateFixture(project, "HEAD", tmp_path / "libraries")
        return str(raised.value)

    def test_instructions_that_the_base_lacks(self, project, tmp_path):
        text = (project / "setup.py").read_text()
        (project / "setup.py").unlink()
        commit(project)
        (project / "setup.py").write_text(text)
        fault = "only the base could not be compiled (kvcache.parts.fast), so times would mean nothing"
        assert self.refusal(project, tmp_path) == f"{fault}:\nit has no setup.py"

    def test_one_of_two_modules_that_the_base_leaves_out(self, project, tmp_path):
        (project / "kvcache" / "slow.c").write_text("")
        edit(project, "setup.py", "for source", "print('no header')\nfor source")
        edit(project, "setup.py", '"*.c"', '"s*.c"')
        commit(project)
        edit(project, "setup.py", '"s*.c"', '"*.c"')
        fault = "only the base could not be compiled (kvcache.parts.fast), so times would mean nothing"
        assert self.refusal(project, tmp_path) == f"{fault}:\nno header\n"

    def test_what_git_does_not_put_into_an_archive(self, project, tmp_path):
        (project / ".gitattributes").write_text("*.c export-ignore\n")
        commit(project)
        assert "git archive leaves kvcache/parts/fast.c out of" in self.refusal(project, tmp_path)

    def test_a_library_that_is_a_submodule(self, tmp_path):
        library = make_repository(tmp_path / "library")
        outer = tmp_path / "outer"
        (outer / "benchmarks" / "gates").mkdir(parents=True)
        git(outer, "init", "--quiet")
        git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "kvcache")
        commit(outer)
        assert "has no kvcache/: there is nothing to compare with" in self.refusal(outer, tmp_path)

    def test_a_link_that_leads_out_of_the_library(self, project, tmp_path):
        (project / "kvcache" / "link").symlink_to("/etc/hostname")
        commit(project)
        assert "cannot be extracted: " in self.refusal(project, tmp_path)

    def test_what_git_says_is_passed_on(self, project, tmp_path):
        (project.parents[1] / ".git" / "HEAD").write_text("nonsense")
        assert "; git says: fatal: " in self.refusal(project, tmp_path)
