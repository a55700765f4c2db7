"""Pictures of replays have the numbers of their files, and are whole files of the format that their name says."""

import matplotlib
import msgspec
import pandas as pd
import pytest
from matplotlib.figure import Figure
from replay_files import COMMITTED, replay, tiny

from kvbench.report.pictures import (
    draw_memory,
    draw_outcomes,
    draw_places,
    draw_search,
    draw_step,
    draw_tree,
    picture,
    write_picture,
)
from kvbench.report.searches import read_searches
from kvbench.results.replay import OUTCOMES, STEP, ReplayResults


@pytest.fixture(scope="module")
def replays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    options = "--repetitions", "1", "--capacity", "default", "--capacity", "recur=5"
    file = replay(tiny(folder / "$a$ & b.parquet"), folder / "replay.json", *options)
    return msgspec.json.decode(file.read_bytes(), type=ReplayResults).replays


@pytest.fixture
def axes():
    return Figure().add_subplot()


def ends(axes):
    """Where the last bar of each line ends."""
    rights = {}
    for bar in axes.patches:
        line = round(bar.get_y() + bar.get_height() / 2)
        rights[line] = max(rights.get(line, 0), bar.get_x() + bar.get_width())
    return [rights[line] for line in sorted(rights)]


def test_a_step_ends_at_its_median_and_says_the_ratio(replays, axes):
    draw_step(axes, replays[0])
    assert ends(axes) == pytest.approx([each.latency_us[STEP].p50 for each in replays[0].backends])
    texts = [each.get_text() for each in axes.texts]
    assert "times as fast" not in texts[0]
    assert f"({replays[0].baseline_over_backend['new'].median:.1f} times as fast)" in texts[1]


def test_memory_is_what_all_pools_reserve(replays, axes):
    draw_memory(axes, replays[0])
    assert ends(axes) == pytest.approx([sum(each.bytes_reserved.values()) / 1e6 for each in replays[0].backends])


def test_outcomes_are_whole_and_have_the_colours_of_the_pages(replays, axes):
    draw_outcomes(axes, replays)
    assert ends(axes) == pytest.approx([100] * 4)
    assert [each.get_text() for each in axes.get_yticklabels()] == [
        "legacy, default", "new, default", "legacy, recur=5", "new, recur=5",
    ]  # fmt: skip
    (stale,) = [each for each in axes.containers if each.get_label() == "stale hit"]
    assert matplotlib.colors.to_hex(stale[2].get_facecolor()) == "#c0392b"
    assert stale[2].get_width() == pytest.approx(replays[1].backends[0].rate("stale_hit"))


@pytest.mark.parametrize("axis", ["simulation", "depth"])
def test_places_are_all_lookups(replays, axes, axis):
    timeline = replays[1].backends[0].timeline
    draw_places(axes, timeline, axis)
    drawn = sum(bar.get_height() for bar in axes.patches)
    assert drawn == sum(each[outcome] for each in timeline.counts(axis).values() for outcome in OUTCOMES)


def test_a_search_is_as_long_as_its_parts(axes):
    draw_search(axes, {"forward": 2.0, "cache": 0.5})
    assert ends(axes) == [2.5]
    assert [each.get_label() for each in axes.containers] == ["forward", "cache"]


def test_a_tree_has_its_root_above_and_each_node_below_its_parent(axes):
    tree = read_searches(COMMITTED, searches=1).tree()
    draw_tree(axes, tree)
    assert len(axes.lines) == len(tree) - 1  # a line from each node but the root
    assert all(line.get_ydata()[1] - line.get_ydata()[0] == 1 for line in axes.lines)
    top, bottom = axes.get_ylim()
    assert top > bottom
    places = [tuple(place) for place in axes.collections[0].get_offsets()]
    assert len(set(places)) == len(tree), "two nodes lie on each other"


def test_a_tree_of_its_root_alone_can_be_drawn(axes):
    draw_tree(axes, pd.DataFrame({"parent": [-1], "simulation": [-1], "depth": [0]}))
    assert len(axes.lines) == 0
    assert len(axes.collections[0].get_offsets()) == 1


def test_a_picture_has_a_row_for_each_trace(replays):
    other = msgspec.structs.replace(replays[0], trace=msgspec.structs.replace(replays[0].trace, sha256="0" * 64))
    figure = picture([*replays, other], {"cpu": "a machine"})
    assert [len(row.axes) for row in figure.subfigs] == [3, 3]
    assert figure.subfigs[0].get_suptitle() == "$a$ & b: 1 search on cpu. a machine"


def test_nothing_empty_is_drawn_where_nothing_was_timed(replays):
    untimed = [msgspec.structs.replace(each, latency_us=None) for each in replays[0].backends]
    figure = picture([msgspec.structs.replace(replays[0], backends=untimed)], {"cpu": "a machine"})
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Memory reserved, MB; default pools",
        "What lookups return, %",
    ]


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a.PNG", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_a_file_has_the_format_of_its_name(tmp_path, replays, name, begins):
    write_picture(tmp_path / name, replays, {"cpu": "a machine"})
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [each.name for each in tmp_path.iterdir()] == [name]
