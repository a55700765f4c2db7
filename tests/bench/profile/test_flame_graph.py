import re
from xml.etree import ElementTree

import pytest

from kvbench.profile.flame_graph import render_difference, render_flame_graph

SVG = "{http://www.w3.org/2000/svg}"
STACKS = {
    ("store",): 10_000_000,
    ("store", "write (kvcache/pool.py:9)"): 20_000_000,
    ("store", "write (kvcache/pool.py:9)", "aten::copy_"): 30_000_000,
    ("hash", "<built-in method find>"): 40_000_000,
}


def frames(svg):
    """Tooltip, left edge and width in %, top and colour of each frame."""
    found = []
    for each in ElementTree.fromstring(svg).iter(f"{SVG}svg"):
        if "f" in each.get("class", "").split():
            x, width = (float(each.get(name).rstrip("%")) for name in ("x", "width"))
            found.append((each.find(f"{SVG}title").text, x, width, int(each.get("y")), each.get("class").split()[1]))
    return found


def test_frames_are_as_wide_as_their_time_and_stand_below_their_callers():
    drawn = frames(render_flame_graph(STACKS, "title", "note"))
    top = drawn[0][3]
    assert [(text, x, width, (y - top) // 18, kind) for text, x, width, y, kind in drawn] == [
        ("all: 100.000 ms, 100.0 %", 0, 100, 0, "all"),
        ("store: 60.000 ms, 60.0 %", 0, 60, 1, "kind"),
        ("write (kvcache/pool.py:9): 50.000 ms, 50.0 %", 0, 50, 2, "ours"),
        ("aten::copy_: 30.000 ms, 30.0 %", 0, 30, 3, "torch"),
        ("hash: 40.000 ms, 40.0 %", 60, 40, 1, "kind"),
        ("<built-in method find>: 40.000 ms, 40.0 %", 60, 40, 2, "python"),
    ]


def test_the_picture_is_as_high_as_its_deepest_stack():
    for depth in (1, 30):
        svg = render_flame_graph({tuple("abcdefghijklmnopqrstuvwxyzABCD"[:depth]): 5}, "t", "n")
        lowest = max(y for *_, y, _ in frames(svg))
        assert lowest + 18 <= int(ElementTree.fromstring(svg).get("height")) <= lowest + 40


def test_what_is_too_narrow_to_see_is_left_out():
    drawn = frames(render_flame_graph({("store",): 10**9, ("hash",): 10**5, ("lookup",): 10**6}, "t", "n"))
    assert [text.partition(":")[0] for text, *_ in drawn] == ["all", "store", "lookup"]


def test_names_are_text_and_nothing_else():
    hostile = "</title><script>alert(1)</script>&\"'"
    svg = render_flame_graph({(hostile,): 5}, hostile, hostile)
    tree = ElementTree.fromstring(svg)
    assert len(list(tree.iter(f"{SVG}script"))) == 1
    assert frames(svg)[1][0].startswith(hostile)


def test_the_file_needs_no_other():
    svg = render_flame_graph(STACKS, "t", "n").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|href|src=|@import|url\(", svg)


@pytest.mark.parametrize("stacks", [{}, {("store",): 0}])
def test_without_any_time_it_says_so(stacks):
    svg = render_flame_graph(stacks, "t", "n")
    assert frames(svg) == []
    assert "no time was spent" in svg


def test_a_difference_shows_more_and_less_and_what_one_side_lacks():
    base = {("store",): 500, ("store", "write"): 300, ("store", "copy"): 200}
    head = {("store",): 500, ("store", "write"): 400, ("store", "claim"): 4}
    drawn = {text: (width, kind) for text, _, width, _, kind in frames(render_difference(base, head, "t", "n"))}
    assert {text: kind for text, (_, kind) in drawn.items()} == {
        "all: 1,000 -> 904 instructions, -9.60 % of all": "less-much",
        "store: 1,000 -> 904 instructions, -9.60 % of all": "less-much",
        "write: 300 -> 400 instructions, +10.00 % of all": "more-much",
        "copy: 200 -> 0 instructions, -20.00 % of all": "less-much",
        "claim: 0 -> 4 instructions, +0.40 % of all": "more-little",
    }
    assert drawn["copy: 200 -> 0 instructions, -20.00 % of all"][0] == pytest.approx(100 * 200 / 1104, abs=0.001)


def test_equal_sides_have_no_colour():
    assert {kind for *_, kind in frames(render_difference(STACKS, STACKS, "t", "n"))} == {"equal"}
