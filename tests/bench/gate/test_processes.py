"""Processes that measure: both libraries side by side, nothing of the caller's surroundings, and errors that help."""

import os
from pathlib import Path

import pytest
from gate.tiny_repository import CONFTEST, GATES, LIBRARY, commit, edit, git, make_repository

from kvbench.gate import processes
from kvbench.gate.build import run_at_once
from kvbench.gate.processes import GateError, GateFixture, Measured

STORE, LOOKUP, SLIDE = (f"test_operation[{kind}]" for kind in ("store", "lookup", "slide"))


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A fixture whose head has more copies, a slower store, a lookup that is broken and a slide that is new."""
    folder = tmp_path_factory.mktemp("changed")
    repository = make_repository(folder / "repository")
    edit(repository, LIBRARY, '"store": 5, "lookup": 2', '"store": 6, "lookup": 2, "slide": 1')
    edit(repository, LIBRARY, '"store": 3, "lookup": 0', '"store": 4, "lookup": 0, "slide": 7')
    edit(repository, LIBRARY, "return kind", 'return None if kind == "lookup" else kind')
    return GateFixture(repository, "HEAD", folder / "libraries")


@pytest.fixture(scope="module")
def base(changed):
    return changed.measure("base", 1, "both")


@pytest.fixture(scope="module")
def head(changed):
    return changed.measure("head", 1, "both")


class TestMeasured:
    def test_the_base_is_the_commit_and_the_head_the_working_tree(self, base, head):
        assert base.metrics == {STORE: {"copies": 3}, LOOKUP: {"copies": 0}}
        assert head.metrics == {STORE: {"copies": 4}, SLIDE: {"copies": 7}}

    def test_times_are_microseconds_of_the_fastest_round(self, base, head):
        assert base.times == pytest.approx({STORE: 5, LOOKUP: 2})
        assert head.times == pytest.approx({STORE: 6, SLIDE: 1})

    def test_what_failed_has_its_reason_and_no_numbers(self, base, head):
        assert base.failures == {}
        assert list(head.failures) == [LOOKUP]
        assert "lookup returned | wrong content" in head.failures[LOOKUP]

    def test_what_was_skipped_has_its_reason(self, base, head):
        assert base.skips == {SLIDE: "this commit has no 'slide'"}
        assert head.skips == {}

    def test_metrics_alone(self, changed):
        measured = changed.measure("base", 1, "metrics")
        assert (set(measured.metrics), measured.times) == ({STORE, LOOKUP}, {})

    def test_times_alone_and_of_chosen_benchmarks(self, changed, base):
        measured = changed.measure("base", 1, "times", [base.places[LOOKUP]])
        assert (measured.metrics, set(measured.times)) == ({}, {LOOKUP})

    def test_the_keyword_chooses_as_pytests_does(self, changed):
        chosen = GateFixture(changed.checkout, "HEAD", changed.sides["base"].parent / "chosen", "store or slide")
        measured = chosen.measure("base", 1, "metrics")
        assert (set(measured.metrics), set(measured.skips)) == ({STORE}, {SLIDE})

    def test_a_keyword_that_chooses_nothing_measures_nothing(self, changed):
        nothing = GateFixture(changed.checkout, "HEAD", changed.sides["base"].parent / "nothing", "nonsense")
        assert nothing.measure("base", 1, "both") == Measured()

    def test_files_of_the_base(self, changed):
        assert '"store": 3' in changed.file_of_base(Path(LIBRARY))
        assert changed.file_of_base(Path("no/such")) is None


def test_an_older_base_is_measured_by_the_gates_of_the_working_tree(tmp_path, repository):
    first = git(repository, "rev-parse", "HEAD")
    edit(repository, LIBRARY, '"store": 3', '"store": 4')
    edit(repository, GATES, '{"copies"', '{"twice": 2 * kvcache.COPIES[kind], "copies"')
    commit(repository)
    fixture = GateFixture(repository, first, tmp_path / "libraries", "store")
    assert fixture.commit == first
    assert fixture.measure("base", 1, "metrics").metrics == {STORE: {"twice": 6, "copies": 3}}


def test_a_library_that_changes_meanwhile_is_measured_as_it_was(tmp_path, repository):
    fixture = GateFixture(repository, "HEAD", tmp_path / "libraries", "store")
    edit(repository, LIBRARY, '"store": 3', '"store": 4')
    assert fixture.measure("head", 1, "metrics").metrics == {STORE: {"copies": 3}}


class TestBuilding:
    """Both sides are compiled where they are measured."""

    BUILD = "import pathlib, sys\npathlib.Path('kvcache/fast.x.so').write_text(' '.join(sys.argv[1:]) + ' {}')\n"
    LEAVES_OUT = "print('error: no such header')\n"

    @pytest.fixture
    def compiled(self, repository):
        """A base that has something to compile."""
        (repository / "kvcache" / "fast.c").write_text("")
        (repository / "setup.py").write_text(self.BUILD.format("base"))
        commit(repository)
        return repository

    def test_by_each_sides_own_instructions(self, tmp_path, compiled):
        (compiled / "setup.py").write_text(self.BUILD.format("head"))
        sides = GateFixture(compiled, "HEAD", tmp_path / "libraries").sides
        built = {side: (folder / "kvcache" / "fast.x.so").read_text() for side, folder in sides.items()}
        assert built == {side: f"--quiet build_ext --inplace {side}" for side in ("base", "head")}

    def test_a_base_that_has_nothing_to_compile(self, tmp_path, repository):
        (repository / "kvcache" / "fast.c").write_text("")
        (repository / "setup.py").write_text(self.BUILD.format("head"))
        sides = GateFixture(repository, "HEAD", tmp_path / "libraries").sides
        assert [any(folder.rglob("*.so")) for folder in sides.values()] == [False, True]

    def test_what_was_compiled_in_the_checkout_is_not_measured(self, tmp_path, repository):
        (repository / "kvcache" / "_old.so").write_text("stale")
        sides = GateFixture(repository, "HEAD", tmp_path / "libraries").sides
        assert not list(sides["head"].rglob("*.so"))

    def test_without_a_compiler_both_sides_are_measured_as_they_are(self, tmp_path, compiled):
        (compiled / "setup.py").write_text(self.LEAVES_OUT)
        commit(compiled)
        GateFixture(compiled, "HEAD", tmp_path / "libraries")

    def test_a_head_that_does_not_compile_any_more_is_measured_and_seen(self, tmp_path, compiled):
        (compiled / "setup.py").write_text(self.LEAVES_OUT)
        fixture = GateFixture(compiled, "HEAD", tmp_path / "libraries")
        assert fixture.compiled == {"base": ["kvcache.fast"], "head": []}

    def test_a_build_that_fails(self, tmp_path, compiled):
        (compiled / "setup.py").write_text("raise SystemExit('no such file')")
        with pytest.raises(GateError, match=r"the head's setup.py failed \(exit code 1\):\nno such file"):
            GateFixture(compiled, "HEAD", tmp_path / "libraries")


def test_a_process_has_its_seed_and_one_thread_and_nothing_of_the_callers(tmp_path, repository, monkeypatch):
    for name, value in {"PYTEST_ADDOPTS": "--no-such-option", "OMP_NUM_THREADS": "7", "PYTHONHASHSEED": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    edit(repository, GATES, "import kvcache", "import os\n\nimport kvcache")
    seen = '{name: int(os.environ[name]) for name in ("PYTHONHASHSEED", "OMP_NUM_THREADS")}'
    edit(repository, GATES, '{"copies": kvcache.COPIES[kind]}', seen)
    fixture = GateFixture(repository, "HEAD", tmp_path / "libraries", "store")
    found = [fixture.measure(side, seed, "both").metrics[STORE] for side, seed in (("base", 3), ("head", 4))]
    assert found == [{"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": 1} for seed in (3, 4)]


def state(repository):
    """All files but what Python compiled, and what git knows of them."""
    files = [path for path in repository.rglob("*") if path.is_file() and not {".git", "__pycache__"} & set(path.parts)]
    asked = (["status", "--porcelain"], ["worktree", "list"], ["stash", "list"], ["branch", "--all"])
    return {path: path.read_text() for path in files}, [git(repository, *each) for each in asked]


def test_the_repository_is_left_as_it_was(tmp_path, repository):
    edit(repository, LIBRARY, '"store": 3', '"store": 4')
    before = state(repository)
    fixture = GateFixture(repository, "HEAD", tmp_path / "libraries")
    for side in fixture.sides:
        fixture.measure(side, 1, "both")
    assert state(repository) == before


class TestErrors:
    def test_an_unknown_revision(self, tmp_path, repository):
        with pytest.raises(GateError, match=r"git knows no revision 'origin/main' in .*: fetch it first"):
            GateFixture(repository, "origin/main", tmp_path / "libraries")

    def test_a_folder_that_is_no_checkout(self, tmp_path):
        with pytest.raises(GateError, match=r"has no benchmarks.gates: run the gate in a checkout of kvcache"):
            GateFixture(tmp_path, "HEAD", tmp_path / "libraries")

    def test_a_checkout_without_git(self, tmp_path, repository, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(GateError, match="needs git, which is not installed"):
            GateFixture(repository, "HEAD", tmp_path / "libraries")

    def test_a_base_without_the_library(self, tmp_path, repository):
        git(repository, "rm", "-r", "--quiet", "--cached", "kvcache")
        (repository / LIBRARY).rename(tmp_path / "library.py")
        without = commit(repository)
        (repository / LIBRARY).parent.mkdir(exist_ok=True)
        (tmp_path / "library.py").rename(repository / LIBRARY)
        with pytest.raises(GateError, match=f"{without[:8]} has no kvcache/: there is nothing to compare with"):
            GateFixture(repository, without, tmp_path / "libraries")

    def test_gates_that_pytest_cannot_run(self, tmp_path, repository):
        edit(repository, CONFTEST, "import pytest\n", "import nonsense\n")
        fixture = GateFixture(repository, "HEAD", tmp_path / "libraries")
        with pytest.raises(GateError, match=r"(?s)could not measure the head \(exit code 4\):.*No module.*'nonsense'"):
            fixture.measure("head", 1, "both")

    def test_another_library_than_the_sides(self, tmp_path, repository):
        edit(repository, CONFTEST, "import pytest\n", f"import sys\n\nsys.path.insert(0, {str(repository)!r})\n")
        fixture = GateFixture(repository, "HEAD", tmp_path / "libraries")
        with pytest.raises(GateError, match=f"the base should have been measured, but {repository / LIBRARY} was"):
            fixture.measure("base", 1, "both")

    def test_two_benchmarks_of_one_name(self, tmp_path, repository):
        other = repository / GATES.replace("tiny", "other")
        other.write_text((repository / GATES).read_text())
        fixture = GateFixture(repository, "HEAD", tmp_path / "libraries", "store")
        with pytest.raises(
            GateError, match=r"two benchmarks are called 'test_operation\[store\]', in .*other.py::.* and "
        ):
            fixture.measure("head", 1, "both")

    def test_a_process_that_hangs(self, tmp_path, repository, monkeypatch):
        monkeypatch.setattr(processes, "LONGEST_PROCESS", 0.01)
        fixture = GateFixture(repository, "HEAD", tmp_path / "libraries")
        with pytest.raises(GateError, match=r"a process of the head did not end within 0.01 s"):
            fixture.measure("head", 1, "both")

    def test_one_of_two_at_once_that_hangs(self, tmp_path, repository, monkeypatch):
        sleep = "import os, time\n\ntime.sleep(1000 * ('/head' in os.environ['PYTHONPATH']))\nimport pytest\n"
        edit(repository, CONFTEST, "import pytest\n", sleep)
        monkeypatch.setattr(processes, "LONGEST_PROCESS", 2)
        fixture = GateFixture(repository, "HEAD", tmp_path / "libraries")
        with pytest.raises(GateError, match=r"a process of the head did not end within 2 s"):
            fixture.measure_sides(["head", "base"], 1, "metrics")

    def test_a_library_that_cannot_be_imported_is_a_failure_and_no_silence(self, tmp_path, repository):
        (repository / LIBRARY).write_text("import nonsense\n")
        fixture = GateFixture(repository, "HEAD", tmp_path / "libraries")
        with pytest.raises(GateError, match=r"(?s)could not measure the head .*No module named 'nonsense'"):
            fixture.measure("head", 1, "both")


def test_metrics_of_both_sides_are_measured_at_once_and_times_one_by_one(changed, monkeypatch):
    asked = []

    def remember(commands, *options):
        commands = list(commands)
        asked.append(len(commands))
        return run_at_once(commands, *options)

    monkeypatch.setattr(processes, "run_at_once", remember)
    at_once = changed.measure_sides(["head", "base"], 1, "metrics")
    assert (list(at_once), asked) == (["head", "base"], [2])
    assert at_once == {side: changed.measure(side, 1, "metrics") for side in ("head", "base")}
    asked.clear()
    assert set(changed.measure_sides(["base", "head"], 1, "times")) == {"base", "head"}
    assert asked == [1, 1]


def test_sides_have_paths_of_one_length(changed):
    assert len({len(os.fspath(side)) for side in changed.sides.values()}) == 1
