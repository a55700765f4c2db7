"""Pages in a browser, used: filtered, compared, by keyboard, on a phone, on paper, and read by axe."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from asv_files import write_results
from chromium import NARROW, WIDE, Browser, find_chromium

from kvbench.report import Inputs, build_report

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

AXE = "axe-core@4.14.1"
SERIOUS = ("serious", "critical")
SCROLLS = """[...document.querySelectorAll("body *")].filter((each) => /auto|scroll/.test(
  getComputedStyle(each).overflowX + getComputedStyle(each).overflowY) && each.clientWidth
  && (each.scrollWidth > each.clientWidth + 1 || each.scrollHeight > each.clientHeight + 1)
  && each.tagName !== "SELECT").length"""
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
OPEN_ALL = """(() => { document.querySelectorAll("details").forEach((each) => { each.open = true; });
  document.querySelectorAll(".opens button").forEach((each) => each.click());
  return new Promise((done) => setTimeout(done, 100)); })()"""
BYTES, EVICTIONS = "x.track_bytes_reserved", "x.track_evictions"
STEPS = {
    (BYTES, ("pong", "new:slab")): [100.0, 100.0, 250.5, 250.5],
    (BYTES, ("pong", "legacy")): [1.0] * 4,
    (BYTES, ("wide", "new:slab")): [7.0, 7.0, 7.0, 7.0],
    (BYTES, ("wide", "legacy")): [9.0] * 4,
    (EVICTIONS, ("pong", "new:slab")): [7.0, 8.0, 7.0, 9.0],
    (EVICTIONS, ("pong", "legacy")): [5.0] * 4,
}
COMMITS = [f"{number}" * 40 for number in "abcd"]
UNITS = {BYTES: "bytes", EVICTIONS: "evictions"}
SHOWN = "[...document.querySelectorAll('section[data-facets]')].filter((each) => !each.hidden).map((each) => each.id)"
CHANGED = """[...document.querySelectorAll("[data-compared] tbody tr")].map((row) => [
  row.cells[1].textContent, row.cells[3].textContent, Number(row.cells[4].dataset.value),
  Number(row.cells[5].dataset.value)])"""


def choose(browser, name, value):
    browser.evaluate(
        f"(() => {{ const field = document.querySelector('select[name={name}]'); field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('change')); })()"
    )


@pytest.fixture(scope="module")
def browser():
    with Browser(find_chromium()) as opened:
        yield opened


@pytest.fixture(scope="module")
def stepped(tmp_path_factory):
    """Pages of a small history, by their names."""
    folder = tmp_path_factory.mktemp("stepped")
    results = write_results(folder / "results", STEPS, units=UNITS, commits=COMMITS, param=("geometry", "backend"))
    return {page.name: page for page in build_report(Inputs(results, repository=folder), folder / "html")}


def test_figures_are_filtered_and_the_choice_goes_along(browser, stepped):
    browser.open(stepped["histories.html"])
    assert len(browser.evaluate(SHOWN)) == 3
    choose(browser, "geometry", "pong")
    assert len(browser.evaluate(SHOWN)) == 2
    choose(browser, "metric", "x.evictions")
    (only,) = browser.evaluate(SHOWN)
    assert "evictions" in only
    link = browser.evaluate("document.querySelector('header nav a').href")
    assert link.endswith("#geometry=pong&metric=x.evictions")
    assert "Shown: 1 of 3 figures" in browser.evaluate("document.querySelector('#filters output').textContent")
    browser.evaluate("document.querySelector('#filters [type=reset]').click()")
    browser.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert len(browser.evaluate(SHOWN)) == 3


def test_rows_are_filtered_by_the_commits_they_lie_between(browser, stepped):
    browser.open(stepped["regressions.html"])
    rows = "[...document.querySelectorAll('#change-points-worse tr[data-facets]:not([data-out])')].length"
    assert browser.evaluate(rows) == 3
    choose(browser, "from", COMMITS[2][:8])
    choose(browser, "to", COMMITS[3][:8])
    assert browser.evaluate(rows) == 1


def test_two_commits_are_compared_by_exact_values(browser, stepped):
    browser.open(stepped["compare.html"])
    assert browser.evaluate(CHANGED) == [["x.evictions", "new:slab", 7, 9]]
    choose(browser, "from", COMMITS[0][:8])
    assert browser.evaluate(CHANGED) == [
        ["x.bytes_reserved", "new:slab", 100, 250.5],
        ["x.evictions", "new:slab", 7, 9],
    ]


def test_a_step_has_its_levels_and_far_lines_are_left_out(stepped):
    text = stepped["histories.html"].read_text()
    panel = next(each for each in text.split("<section") if "bytes_reserved" in each and "250.5</text>" in each)
    assert ">100</text>" in panel
    assert "Not drawn, since it would flatten the others: legacy, at 1." in panel
    assert "</i>new:slab" not in panel  # alone, it needs no legend
    assert f"newest: {COMMITS[3][:8]}</text>" in panel


def test_arrow_keys_read_the_values(browser, stepped):
    browser.open(stepped["histories.html"])
    browser.evaluate("document.querySelector('.canvas').focus()")
    told = []
    for _ in range(2):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
        told.append(browser.evaluate("document.activeElement.querySelector('output:not([hidden])').textContent"))
    assert told[0] != told[1]
    assert COMMITS[1][:8] in told[1]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_scrolls_in_a_box_with_all_of_it_open(browser, plain, width):
    for page in plain[1]:
        browser.open(page, width)
        browser.evaluate(OPEN_ALL)
        assert browser.evaluate(SCROLLS) == 0, page
        assert browser.evaluate(FITS), page


def test_a_phone_shows_first_how_much_and_where(browser, stepped):
    browser.open(stepped["regressions.html"], NARROW)
    row = "document.querySelector('#change-points-worse tbody tr')"
    labels = browser.evaluate(f"[...{row}.cells].map((each) => each.dataset.label)")
    assert labels[:4] == ["change, %", "metric", "parameters", "commit"]
    assert (
        browser.evaluate("document.querySelector('#change-points-worse tr.rest').getBoundingClientRect().height") == 0
    )
    browser.evaluate("document.querySelector('#change-points-worse .opens button').click()")
    assert browser.evaluate("document.querySelector('#change-points-worse tr.rest').getBoundingClientRect().height") > 0


def test_paper_has_every_row_and_no_form(browser, stepped):
    browser.open(stepped["regressions.html"], media="print")
    assert browser.evaluate("getComputedStyle(document.querySelector('tr.rest')).display") == "table-row"
    assert browser.evaluate("getComputedStyle(document.querySelector('#filters form')).display") == "none"


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """The source of axe-core, from npm: its licence and size keep it out of the repository."""
    npm, kept = shutil.which("npm"), Path.home() / ".cache" / "kvbench-tests" / f"{AXE}.js"
    if not kept.is_file():
        if npm is None:
            pytest.skip("no npm here to fetch axe-core with")
        folder = tmp_path_factory.mktemp("axe")
        fetched = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, check=False, timeout=60)
        if fetched.returncode:
            pytest.skip("npm cannot fetch axe-core: no network?")
        shutil.unpack_archive(next(folder.glob("*.tgz")), folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "package" / "axe.min.js", kept)
    return kept.read_text()


@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, True)])
@pytest.mark.slow
def test_axe_finds_nothing_serious(browser, axe, plain, stepped, width, dark):
    found = []
    for page in stepped.values() if dark else [*plain[1], *stepped.values()]:
        browser.open(page, width, dark)
        browser.evaluate(OPEN_ALL)
        browser.evaluate(axe + ";0")
        for each in browser.evaluate("axe.run().then((found) => found.violations)"):
            if each["impact"] in SERIOUS:
                found.append(
                    (page.name, each["id"], each["nodes"][0]["html"][:200], each["nodes"][0]["failureSummary"])
                )
    assert found == []


def test_of_a_filtered_storage_its_line_and_the_one_beside_it_are_left(browser, stepped):
    browser.open(stepped["histories.html"])
    pressed = """[...document.querySelectorAll('#' + CSS.escape(%s) + ' [data-toggle]')].map((each) => [
      each.textContent.trim(), each.getAttribute('aria-pressed')])"""
    name = next(each for each in browser.evaluate(SHOWN) if "wide" in each)
    choose(browser, "storage", "legacy")
    assert dict(browser.evaluate(pressed % json.dumps(name))) == {"new:slab": "false", "legacy": "true"}
    choose(browser, "storage", "new:slab")
    assert dict(browser.evaluate(pressed % json.dumps(name))) == {"new:slab": "true", "legacy": "true"}
