"""What ``benchmarks/scale.py`` prints of what it measured."""

import scale
from click.testing import CliRunner


def rows_of(monkeypatch, *arguments):
    """The table, of made costs: two seconds and ten microseconds an event. And the commands that were run."""
    ran, searches = [], [0]

    def measure(words, checkout):
        ran.append((words[1], checkout.name))
        if "--searches" in words:
            searches.append(int(words[-1]))
        return 2.0 + searches[-1] * scale.events_of_a_search("cartpole") * 1e-5, 9.0, 300.0

    monkeypatch.setattr(scale, "measure", measure)
    result = CliRunner().invoke(scale.main, arguments)
    assert result.exit_code == 0, result.output
    lines = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("|")]
    return lines[2:], ran


def test_a_further_event_is_the_difference_to_fewer_events(monkeypatch):
    sizes = ("--events", "62400", "--events", "624000")
    rows, ran = rows_of(monkeypatch, *sizes, "--command", "check", "--command", "synthesize")
    assert [row[:2] for row in rows] == [
        ["check", "62,400"], ["synthesize", "62,400"], ["check", "624,000"], ["synthesize", "624,000"]
    ]  # fmt: skip
    assert [row[4] for row in rows] == ["-", "-", "10.00", "10.00"]
    assert [name for name, _ in ran] == ["synthesize", "check"] * 2  # made once


def test_traces_that_are_there_are_not_made_again(monkeypatch, tmp_path):
    (tmp_path / "cartpole-624.parquet").touch()
    _, ran = rows_of(monkeypatch, "--events", "624", "--command", "check", "--traces", str(tmp_path))
    assert [name for name, _ in ran] == ["check"]


def test_checkouts_are_compared_in_turn(monkeypatch, tmp_path):
    rows, ran = rows_of(
        monkeypatch, "--events", "624", "--command", "show", "--checkout", ".", "--checkout", str(tmp_path)
    )
    assert [row[1] for row in rows] == ["show", "show"]
    assert ran[1:] == [("show", rows[0][0]), ("show", tmp_path.name)]
