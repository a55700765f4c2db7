"""The plain form: pytest-benchmark compares two processes, around libraries that were built alike."""

import pytest
from click.testing import CliRunner
from gate.tiny_repository import LIBRARY, edit, make_repository

from kvbench.cli import main
from kvbench.gate.plain import compare_plainly
from kvbench.gate.processes import GateError, GateFixture


@pytest.fixture
def repository(tmp_path):
    return make_repository(tmp_path / "repository")


def compare(repository, keyword="store"):
    """Whether the head is worse, and what was shown."""
    shown = []
    fixture = GateFixture(repository, "HEAD", repository.parent / "libraries", keyword)
    return compare_plainly(fixture, shown.append), "".join(shown)


def test_twice_as_slow_is_worse_and_both_sides_are_shown(repository):
    edit(repository, LIBRARY, '"store": 5', '"store": 11')
    is_worse, shown = compare(repository)
    assert is_worse
    assert "Performance has regressed" in shown
    assert "test_operation[store] (0001_base)" in shown
    assert "test_operation[store] (NOW)" in shown


def test_wrong_content_is_worse(repository):
    edit(repository, LIBRARY, "return kind", "return None")
    is_worse, shown = compare(repository)
    assert is_worse
    assert "wrong content" in shown


def test_nothing_to_compare(repository):
    with pytest.raises(GateError, match="no benchmark was selected: there is nothing to compare"):
        compare(repository, keyword="nonsense")


def test_a_library_that_does_not_load_is_no_verdict(repository):
    (repository / LIBRARY).write_text("import nonsense\n")
    with pytest.raises(GateError, match=r"(?s)could not measure the head .*No module named 'nonsense'"):
        compare(repository)


def gate(repository, monkeypatch, *options):
    monkeypatch.chdir(repository)
    return CliRunner().invoke(main, ["gate", "--plain", "--base", "HEAD", *options])


@pytest.mark.slow
def test_the_exit_code_says_so(repository, monkeypatch):
    assert gate(repository, monkeypatch, "-k", "store").exit_code == 0
    edit(repository, LIBRARY, '"store": 5', '"store": 11')
    assert gate(repository, monkeypatch, "-k", "store").exit_code == 1
    assert gate(repository, monkeypatch, "-k", "store", "--plain-fails", "min:200%").exit_code == 0


def test_it_has_a_table_of_its_own(repository, monkeypatch):
    result = gate(repository, monkeypatch, "--no-times")
    assert result.exit_code == 2
    assert "--plain has a table of its own" in result.stderr
