"""Drawings: text that is text, colours that are the page's, points where the lines are."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from kvbench.report.figures import COLOURS, draw
from kvbench.report.panels import Level, Plot, Series, Table, without_repeats

SVG = "{http://www.w3.org/2000/svg}"
LINES = Plot("x, ms", "y, MB", [Series(name, [0, 1, 2], [1, 5, 3], lambda x, y, name: f"{x} {y}") for name in "ab"])


def texts(drawing):
    return [each.text for each in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text")]


def test_text_is_text_and_no_formula():
    plot = Plot("<b>$x^2$", "&amp;", LINES.series, marks=[(1, "<script>$\\alpha$")])
    found = texts(draw(plot, "figure"))
    assert "<b>$x^2$" in found
    assert "&amp;" in found
    assert "<script>$\\alpha$" in found


def test_all_colours_are_the_pages():
    drawing = draw(Plot("x", "y", [Series(str(each), [0, 1], [each, each]) for each in range(COLOURS)]), "figure")
    assert not re.findall(r"#[0-9a-f]{6}(?![0-9a-f])", re.sub(r'"#[^"]*"|url\([^)]*\)', "", drawing.svg))
    assert {f"var(--series-{each})" for each in range(COLOURS)} <= set(re.findall(r"var\(--series-\d\)", drawing.svg))
    assert "currentColor" in drawing.svg


def test_ids_are_the_figures_own_and_references_meet_them():
    drawings = [draw(LINES, name) for name in ("one", "two")]
    owned = []
    for name, drawing in zip(("one", "two"), drawings, strict=True):
        root = ElementTree.fromstring(drawing.svg)
        ids = [each.get("id") for each in root.iter() if each.get("id")]
        owned += ids
        assert all(each.startswith(f"{name}-") for each in ids)
        used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', drawing.svg)
        assert {a or b for a, b in used} <= set(ids)
    assert len(owned) == len(set(owned))


def test_every_series_can_be_hidden():
    plots = [
        LINES,
        Plot("x", "y", [Series(name, [0, 1], [1, 2], style="bars") for name in "ab"]),
        Plot("x", series=[Series(name, [0, 1], [1, 2]) for name in "ab"], categories=["p", "q"]),
    ]
    for plot in plots:
        drawing = draw(plot, "figure")
        assert [name for name, *_ in drawing.legend] == ["a", "b"]
        found = {each.get("data-series") for each in ElementTree.fromstring(drawing.svg).iter()}
        assert {"0", "1"} <= found


def test_points_lie_on_their_line():
    drawing = draw(LINES, "figure")
    root = ElementTree.fromstring(drawing.svg)
    group = next(each for each in root.iter() if each.get("data-series") == "0")
    path = next(each for each in group.iter(f"{SVG}path") if each.get("d", "").count("L") >= 2)
    drawn = [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d"))]
    assert [point[:2] for point in drawing.points[0]] == [pytest.approx(each, abs=0.1) for each in drawn]
    assert [point[2] for point in drawing.points[0]] == ["0 1", "1 5", "2 3"]


def test_stacked_bars_are_pointed_at_where_they_end():
    bars = [Series(name, [0, 1], [2, 2], lambda x, y, name: str(y), "bars") for name in "ab"]
    below, above = draw(Plot("x", "y", bars), "figure").points
    assert above[0][1] < below[0][1]  # y runs downwards


def test_gaps_and_many_points():
    many = Series("a", range(5000), [math.nan if each % 2 else each for each in range(5000)], lambda x, y, name: "here")
    (points,) = draw(Plot("x", "y", [many]), "figure").points
    assert 500 <= len(points) <= 1000


def test_spreads_are_drawn_and_pointed_at():
    drawing = draw(Plot("us", categories=["p"], spreads=[(1, 2, 3, 4, 5)], log_x=True), "figure")
    assert drawing.points[0][0][2] == "p\nmedian 3 us"


@pytest.mark.parametrize(
    "names",
    [
        ["new:paged-resident-visual-match", "new:paged-visual-match", "new:paged-nonresident-visual-match"],
        ["x" * 60 + each + "x" * 60 for each in "ab"],
        ["short", "other"],
    ],
)
def test_categories_can_be_told_apart_and_have_room(names):
    drawing = draw(Plot("us", categories=names, spreads=[(1, 2, 3, 4, 5)] * len(names)), "figure")
    ends = [
        each for each in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text") if "anchor: end" in each.get("style")
    ]
    assert len({each.text for each in ends}) == len(names)
    assert all(float(each.get("x")) > 5 * len(each.text) for each in ends)  # 9 points high, 5 wide


def test_many_marks_are_one_path_and_their_texts_do_not_overlap():
    marks = [(place + 0.5, f"{place:08d}") for place in range(500)]
    drawing = draw(Plot("x", "y", [Series("a", range(501), range(501))], marks=marks), "figure")
    root = ElementTree.fromstring(drawing.svg)
    found = [each for each in root.iter(f"{SVG}text") if re.fullmatch(r"\d{8}", each.text)]
    places = [float(each.get("x")) for each in found]
    assert 3 <= len(places) <= 10
    assert all(b - a > 36 for a, b in pairwise(places))  # 8 characters of 7 points
    assert max(each.get("d", "").count("M") for each in root.iter(f"{SVG}path")) >= 500
    assert len(drawing.svg) < 150_000
    few = texts(draw(Plot("x", "y", [Series("a", range(9), range(9))], marks=[(1, "one"), (5, "two")]), "figure"))
    assert {"one", "two"} <= set(few)


def test_the_same_plot_gives_the_same_drawing():
    assert draw(LINES, "figure") == draw(LINES, "figure")


def widths(drawing):
    """Of each series' line, points."""
    root = ElementTree.fromstring(drawing.svg)
    found = {}
    for group in root.iter():
        if group.get("data-series") is not None:
            styles = [each.get("style", "") for each in group.iter(f"{SVG}path")]
            stroke = next(match[1] for style in styles if (match := re.search(r"stroke-width: ([\d.]+)", style)))
            found[int(group.get("data-series"))] = float(stroke)
    return found


def test_a_line_that_others_are_drawn_over_is_seen_beneath_them():
    below, middle, top, own = ([3, 3, 4], [3, 3, 4], [3, 3, 5], [1, 2, 9])
    lines = [Series(str(place), [0, 1, 2], y) for place, y in enumerate((below, middle, top, own))]
    found = widths(draw(Plot("x", "y", lines), "figure"))
    assert found[0] > found[1] > found[2] == found[3]


def test_what_one_line_counts_is_counted_in_whole_numbers():
    lines = [Series("mean", [0, 1], [1.5, 2.25]), Series("most", [0, 1], [2, 3])]
    for y in (lines, lines[:1]):
        found = [text for text in texts(draw(Plot("x", "y", y, from_zero=True), "figure")) if text not in "xy"]
        assert any("." in text for text in found) == (len(y) == 1)


@pytest.mark.parametrize(("highest", "within"), [(20, True), (500, True), (1e6, False)])
def test_logarithmic_axes_have_as_many_labels_as_there_is_room_for(highest, within):
    plot = Plot("us", "y", [Series("a", [1.5, highest], [1, 2])], log_x=True)
    found = [text for text in texts(draw(plot, "figure")) if text and text.rstrip("kM").isdigit()]
    assert 2 < len(found) <= 10
    assert any(text.startswith(("2", "5")) and float(text.rstrip("kM")) > 2 for text in found) == within


def test_on_a_logarithmic_axis_small_lines_cover_each_other_only_where_they_seem_to():
    lines = [Series(str(place), [0, 1], [y, y]) for place, y in enumerate((0.001, 0.002, 1))]
    for is_log in (False, True):
        found = widths(draw(Plot("x", "y", lines, log_y=is_log), "figure"))
        assert (found[0] > found[1]) is not is_log


def test_lines_that_look_alike_have_their_own_dots():
    lines = [Series(name, [0, 1, 2], y, colour=6) for name, y in zip("ab", ([1, 5, 3], [2, 2, 9]), strict=True)]
    root = ElementTree.fromstring(draw(Plot("x", "y", lines), "figure").svg)
    for number in "01":
        paths = [each.get("d") for group in root.iter() if group.get("data-series") == number for each in group]
        assert [path.count("h 0") for path in paths] == [0, 3]


def test_no_line_crosses_a_break():
    def begun(breaks):
        plot = Plot("x", "y", [Series("a", range(40), [each % 7 for each in range(40)])], breaks=breaks)
        root = ElementTree.fromstring(draw(plot, "broken").svg)
        return max(each.get("d", "").count("M") for each in root.iter() if each.get("d", "").count("L") > 20)

    assert [begun(breaks) for breaks in ((), (9.5,), (9.5, 20.5))] == [1, 2, 3]


def test_a_history_of_many_commits_is_a_small_drawing():
    lines = [Series(name, range(20), [place + each % 7 for each in range(20)]) for place, name in enumerate("abcde")]
    assert len(draw(Plot("commits", "us", lines, marks=[(3.5, "abcd1234")]), "figure").svg) < 7_000


def test_levels_are_drawn_with_their_series_and_told():
    levels = [Level(0, 0, 1.5, 10, "10"), Level(0, 1.5, 3, 20, "20")]
    drawing = draw(Plot("x", "y", [Series("a", range(4), [9, 11, 19, 21])], levels=levels), "figure")
    own = [each for each in ElementTree.fromstring(drawing.svg).iter() if each.get("data-series") == "0"]
    wide = [each for group in own for each in group.iter(f"{SVG}path") if "stroke-width: 5" in each.get("style", "")]
    assert [each.get("d").count("M") for each in wide] == [2]
    assert {"10", "20"} <= set(texts(drawing))


def test_lines_that_are_the_same_are_one():
    lines = [Series("a", [0, 1], [1, 2]), Series("b", [0, 1], [1, 3]), Series("c", [0, 1], [1, 2])]
    assert [each.name for each in without_repeats(lines)] == ["a, c", "b"]


@pytest.mark.parametrize("rows", [1, 25, 26, 101, 1000])
def test_a_thinned_table_keeps_its_ends(rows):
    found = [row[0] for row in Table(("x",), [[each] for each in range(rows)]).thinned().rows]
    assert len(found) <= 25
    assert (found[0], found[-1]) == (0, rows - 1)
    assert found == sorted(set(found))
