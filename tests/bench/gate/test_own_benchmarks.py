"""What the base measures by its own files, and when that is asked. What becomes of it: test_session.py."""

import pytest
from gate.tiny_repository import CONFTEST, GATES, LIBRARY, commit, edit, make_repository

from kvbench.gate.own_benchmarks import OwnBenchmarks
from kvbench.gate.processes import GateFixture


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository")


def own_of(repository, folder):
    return OwnBenchmarks(GateFixture(repository, "HEAD", folder), folder / "own")


def test_a_file_that_was_deleted_is_listed_with_what_it_counts(repository, tmp_path):
    (repository / GATES).unlink()
    listed = own_of(repository, tmp_path / "libraries").listed(False, pytest.fail)
    assert listed == {"test_operation[store]": {"copies"}, "test_operation[lookup]": {"copies"}}


@pytest.mark.slow
def test_compiled_modules_are_listed(repository, tmp_path):
    edit(repository, CONFTEST, "__version__}", "__version__, 'compiled': {'kvcache._fast': ['built']}}")
    commit(repository)
    edit(repository, CONFTEST, "'compiled': {'kvcache._fast': ['built']}", "")
    listed = own_of(repository, tmp_path / "libraries").listed(False, pytest.fail)
    assert listed["kvcache._fast"] == {"compiled"}


@pytest.mark.slow
def test_what_is_timed_is_listed_where_times_are_measured(repository, tmp_path):
    edit(repository, GATES, 'asked != "metrics"', 'asked != "metrics" and kind != "lookup"')
    listed = own_of(repository, tmp_path / "libraries").listed(True, pytest.fail)
    assert listed["test_operation[lookup]"] == {"copies", "time"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("benchmarks/gates/nested/conftest.py", ""),
        ("benchmarks/suite/clock.py", ""),
        ("kvbench/replay/operations.py", ""),
        ("kvcache/storage/__init__.py", ""),
        ("conftest.py", "collect_ignore_glob = ['*']"),
        ("pytest.ini", "[pytest]\naddopts = -k store"),
    ],
)
def test_they_are_asked_for_where_a_new_file_may_change_what_is_measured(repository, tmp_path, path, text):
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    (repository / path).write_text(text)
    own_of(repository, tmp_path / "libraries")
    assert (tmp_path / "libraries" / "own" / GATES).exists()


def test_files_that_do_not_differ_are_not_run(repository, tmp_path):
    edit(repository, LIBRARY, '"store": 3', '"store": 4')
    assert own_of(repository, tmp_path / "libraries").listed(False, pytest.fail) == {}


def test_benchmarks_of_the_base_that_cannot_be_run_are_told(repository, tmp_path):
    edit(repository, CONFTEST, "import pytest\n", "import nonsense\n")
    commit(repository)
    edit(repository, CONFTEST, "import nonsense\n", "import pytest\n")
    told = []
    assert own_of(repository, tmp_path / "libraries").listed(False, told.append) == {}
    assert "the base's own benchmarks cannot be run" in told[0]


def test_the_bases_own_directions_are_read(repository, tmp_path):
    (repository / "kvbench").mkdir()
    metrics = "class Metric:\n    direction = '{}'\n\n\nMETRICS = {{'copies': Metric()}}\n"
    (repository / "kvbench" / "metrics.py").write_text(metrics.format("lower"))
    commit(repository)
    (repository / "kvbench" / "metrics.py").write_text(metrics.format("higher"))
    assert own_of(repository, tmp_path / "libraries").directions == {"copies": "lower"}


def test_files_that_do_not_differ_have_the_checkouts_directions_and_old_ones_none(repository, tmp_path):
    edit(repository, LIBRARY, '"store": 3', '"store": 4')
    assert own_of(repository, tmp_path / "libraries").directions is None
    edit(repository, GATES, "store", "store_all")
    assert own_of(repository, tmp_path / "others").directions == {}
