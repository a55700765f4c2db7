"""The parts of whole searches on the backends page."""

import pytest
from search_files import write_searches

from kvbench.report.panels import Table
from kvbench.report.whole_searches import read_whole_searches, split_panels
from kvbench.results.decode import ResultsError


def panels(path, *names, **parts):
    return list(split_panels([read_whole_searches(write_searches(path, *names, **parts))]))


def test_a_search_is_bars_of_its_parts_and_a_table(tmp_path):
    (panel,) = panels(tmp_path / "search.json", "legacy", "new")
    assert panel.command == "kvbench search --geometry cartpole"
    assert panel.table == Table(
        ("backend", "a search, ms", "forward, ms", "cache, ms", "tree, ms", "rest, ms", "times as fast as legacy"),
        [["legacy", 10, 5, 2, 2.5, 0.5, 1], ["new", 10, 5, 2, 2.5, 0.5, 1]],
    )
    assert [(each.name, list(each.y)) for each in panel.plot.series] == [
        ("forward", [5, 5]), ("cache", [2, 2]), ("tree", [2.5, 2.5]), ("rest", [0.5, 0.5]),
    ]  # fmt: skip
    assert panel.plot.series[2].hover(1, 2.5, "tree") == "tree: 2.5 ms of 10 ms\nnew"


def test_an_older_file_has_the_cache_alone(tmp_path):
    none = dict.fromkeys(("forward_ms_median", "tree_ms_median", "rest_ms_median"))
    (panel,) = panels(tmp_path / "search.json", "legacy", **none)
    assert panel.table.rows == [["legacy", 10, None, 2, None, None, 1]]
    assert [each.name for each in panel.plot.series] == ["cache"]


def test_nothing_that_was_searched_is_no_panel(tmp_path):
    assert panels(tmp_path / "search.json") == []


def test_another_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "search.json").write_text('{"format": "kvcache-replay"}')
    with pytest.raises(ResultsError, match="give what 'kvbench search --json' wrote"):
        read_whole_searches(tmp_path / "search.json")


def test_it_is_on_the_backends_page_and_on_the_front_page(made):
    rows = made[1]["backends"].rows("search-search-cartpole")
    assert [row["tree, ms"] for row in rows] == [2.5, 2.5]
    (machine,) = (row for row in made[1]["index"].rows("machines") if row["source"] == "search.json")
    assert machine["command"] == "kvbench search --geometry cartpole"
