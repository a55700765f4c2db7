"""Pages in headless Chromium, opened from disk with the network off."""

import pytest
from chromium import NARROW, WIDE, Browser, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

HOVERED = """(() => {
  const figure = [...document.querySelectorAll("figure")].find((each) => pointsOf(JSON.parse(
    each.querySelector("script").textContent)).some((series) => series.length));
  const points = pointsOf(JSON.parse(figure.querySelector("script").textContent));
  const point = points.find((series) => series.length)[0];
  const svg = figure.querySelector("svg");
  svg.scrollIntoView();
  const box = svg.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  const at = { clientX: box.left + point[0] * scale + 1, clientY: box.top + point[1] * scale + 1, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  const tip = figure.querySelector(".tip");
  const shown = tip.hidden ? null : tip.textContent;
  svg.dispatchEvent(new PointerEvent("pointerleave"));
  return [shown, point[2], tip.hidden];
})()"""
TAPPED = """(() => {
  const figure = document.querySelector("figure");
  const point = pointsOf(JSON.parse(figure.querySelector("script").textContent)).find((series) => series.length)[0];
  const svg = figure.querySelector("svg");
  svg.scrollIntoView({ block: "center" });
  const box = svg.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  return [box.left + point[0] * scale, box.top + point[1] * scale, point[2]];
})()"""
HIDDEN = """(() => {
  const figure = [...document.querySelectorAll("figure")].find((each) => each.querySelector("[data-toggle]"));
  const parts = figure.querySelectorAll('svg [data-series="0"]');
  const others = figure.querySelectorAll('svg [data-series="1"]');
  const shown = (list) => [...list].some((part) => getComputedStyle(part).display !== "none");
  const button = figure.querySelector('[data-toggle="0"]');
  const states = [[shown(parts), shown(others)]];
  for (let press = 0; press < 2; press += 1) { button.click(); states.push([shown(parts), shown(others)]); }
  return states;
})()"""
SORTED = """(() => {
  const table = [...document.querySelectorAll("table.sortable")].find((each) => each.tBodies[0].rows.length > 2);
  const cells = [...table.tBodies[0].rows[0].cells];
  const column = cells.findIndex((cell) => cell.dataset.value);
  const values = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.value).filter((v) => v !== "");
  const button = table.tHead.rows[0].cells[column].querySelector('[role="button"]');
  button.click();
  const up = values().map(Number);
  button.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  return [up, values().map(Number)];
})()"""
# What is broken over lines or scrolled within its own box is no overflow; the page itself must fit.
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser():
    with Browser(find_chromium()) as opened:
        yield opened


@pytest.fixture(params=["plain", "hostile"])
def pages(request):
    found = request.getfixturevalue(request.param)
    return found[1] if request.param == "plain" else found


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_open_without_network_and_complaint(browser, pages, width, dark):
    del browser.complaints[:], browser.requests[:]
    for page in pages:
        browser.open(page, width, dark)
        assert browser.evaluate(FITS), f"{page} is wider than {width} pixels"
        assert browser.evaluate("document.querySelectorAll('main *').length") > 3
    assert browser.complaints == []
    assert all(url.startswith(("file:", "data:")) for url in browser.requests)
    assert len(browser.requests) >= len(pages)


def test_a_complaint_would_be_heard(browser, tmp_path):
    (tmp_path / "bad.html").write_text("<script>console.error('no'); missing()</script><img src='gone.png'>")
    del browser.complaints[:]
    browser.open(tmp_path / "bad.html")
    heard = " ".join(browser.complaints)
    assert "console error" in heard
    assert "exception" in heard
    assert "request failed" in heard
    del browser.complaints[:]


def test_a_script_that_got_in_would_not_run(browser, plain, tmp_path):
    text = plain[1][0].read_text().replace("</main>", "<script>document.title = 'mine'</script></main>")
    (tmp_path / "page.html").write_text(text)
    browser.open(tmp_path / "page.html")
    assert browser.evaluate("document.title") != "mine"
    del browser.complaints[:]


def test_values_are_shown_where_they_are_pointed_at(browser, plain):
    browser.open(next(page for page in plain[1] if page.name == "histories.html"))
    shown, wanted, hidden_after = browser.evaluate(HOVERED)
    assert shown == wanted
    assert "us" in wanted or "bytes" in wanted
    assert hidden_after


def test_a_tap_shows_the_value_and_leaves_it(browser, plain):
    browser.open(next(page for page in plain[1] if page.name == "histories.html"), NARROW)
    x, y, wanted = browser.evaluate(TAPPED)
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    shown = browser.evaluate(
        "[...document.querySelectorAll('.tip')].filter((tip) => !tip.hidden).map((tip) => tip.textContent)"
    )
    browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert shown == [wanted]


def test_series_can_be_hidden_and_shown_again(browser, plain):
    browser.open(next(page for page in plain[1] if page.name == "backends.html"))
    assert browser.evaluate(HIDDEN) == [[True, True], [False, True], [True, True]]


def test_tables_sort_by_exact_values(browser, plain):
    browser.open(next(page for page in plain[1] if page.name == "histories.html"))
    up, down = browser.evaluate(SORTED)
    assert len(up) > 2
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)


def test_figures_follow_the_page_into_the_dark(browser, plain):
    page = next(page for page in plain[1] if page.name == "backends.html")
    colours = {}
    for dark in (False, True):
        browser.open(page, dark=dark)
        colours[dark] = browser.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color, "
            "getComputedStyle(document.querySelector('svg text')).fill]"
        )
    assert colours[False][0] != colours[True][0]
    for background, ink, text in colours.values():
        assert text == ink
        assert ink != background


def test_a_printed_page_is_light_and_shows_its_commands(browser, plain):
    browser.open(next(page for page in plain[1] if page.name == "backends.html"), dark=True, media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("document.querySelector('details.command code').getBoundingClientRect().height") > 0
    assert browser.evaluate("getComputedStyle(document.querySelector('header nav')).display") == "none"


def test_a_page_goes_to_paper(browser, plain, tmp_path):
    browser.open(plain[1][0], media="print")
    browser.paper(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


TEXT_SIZES = """[...document.querySelectorAll("svg")].flatMap((svg) => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll("text")].map((text) => scale * parseFloat(getComputedStyle(text).fontSize));
})"""


def test_text_in_figures_is_large_enough_on_a_phone(browser, plain):
    for name in ("backends.html", "histories.html"):
        browser.open(next(page for page in plain[1] if page.name == name), NARROW)
        sizes = browser.evaluate(TEXT_SIZES)
        assert len(sizes) > 20
        assert sorted(sizes)[len(sizes) // 10] >= 10
        assert min(sizes) >= 8  # of the commits' names at marks


def test_text_in_figures_can_be_selected(browser, plain):
    browser.open(next(page for page in plain[1] if page.name == "backends.html"))
    selected = browser.evaluate(
        "(() => { const text = document.querySelector('svg text'); getSelection().selectAllChildren(text);"
        " return [String(getSelection()).trim(), text.textContent.trim()]; })()"
    )
    assert selected[0] == selected[1] != ""
