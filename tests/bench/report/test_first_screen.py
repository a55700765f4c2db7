"""Five readers' questions are answered on the first screen of a desk, and within one swipe on a phone."""

import pytest
from chromium import Browser, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

ANSWERS = ("#last-commit", "#worst-standing", "#gaps", "#against-legacy tbody", "#stale-hits svg")
BOTTOM = "document.querySelector('{}').getBoundingClientRect().bottom"
CUT = """[...document.querySelectorAll(".tally, .against, .findings")]
  .filter((each) => each.scrollWidth > each.parentElement.clientWidth).map((each) => each.className)"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 2 * 844)])
def test_the_answers_are_seen_at_once(plain, width, height):
    with Browser(find_chromium()) as browser:
        browser.open(plain[1][0], width)
        bottoms = {name: browser.evaluate(BOTTOM.format(name)) for name in ANSWERS}
        assert {name: bottom for name, bottom in bottoms.items() if not 0 < bottom <= height} == {}
        assert browser.evaluate(CUT) == []
        assert browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
