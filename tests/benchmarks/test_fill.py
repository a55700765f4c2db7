"""The table by fill: pairs in turns, contents checked, the machine and the baseline named, nothing nearly empty."""

import importlib.util
import json
import re
import time
from dataclasses import replace

import fill
import fill_runs
import fill_tables
import pytest
from faulty_backends import AnotherRow, TokenMajor

from kvbench.record.fills import FILLS
from kvbench.replay.lockstep import SearchClock
from kvcache import GEOMETRIES, Geometry, registry

LONG = Geometry("long", 1, 2, 16, 20, 2, 3, "absolute")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two geometries in which all of it takes no time."""
    monkeypatch.setattr(fill_runs, "SIMULATIONS", 3)
    for name, shape in (("cartpole", replace(LONG, name="cartpole", context_length=8)), ("wide", LONG)):
        monkeypatch.setitem(GEOMETRIES, name, replace(shape, name=name))


def table(output):
    """Cells of the table that is printed as it goes, by geometry and fill."""
    rows = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("|")]
    return rows[0], {(row[0], row[1]): row[2:] for row in rows[2:]}


def run(*arguments):
    fill.main([*arguments, "--seeds", "0", "1", "--searches", "1", "--geometry", "cartpole", "wide"])


@pytest.mark.slow
def test_one_command_prints_every_geometry_and_fill(capsys, monkeypatch):
    shapes = {name: GEOMETRIES[name] for name in ("cartpole", "wide")}
    monkeypatch.setattr(fill, "GEOMETRIES", shapes)
    fill.main(["--seeds", "0", "--searches", "1"])
    output = capsys.readouterr().out
    heading, rows = table(output)
    assert heading[3:] == ["legacy-0.2.0, us", "paged", "paged-resident", "slab", "private"]
    assert set(rows) == {(geometry, each) for geometry in ("cartpole", "wide") for each in FILLS}
    assert all(re.fullmatch(r"\d+\.\d \(\d+\.\d to \d+\.\d\)", each) for row in rows.values() for each in row[2:])
    assert "cores" in output.splitlines()[0]
    assert "against legacy-0.2.0, not LightZero itself" in output
    assert "seeds 0; 1 searches of" in output
    assert re.search(r"contents: \d{3,} lookups by 5 backends, all as stored", output)


@pytest.mark.parametrize(
    ("name", "shortest", "longest"),
    [("start", 1, 5), ("middle", 9, 13), ("full", 17, 17), ("sliding", 17, 17), ("unequal", 17, 17)],
)
def test_what_is_timed_is_as_full_as_it_says(name, shortest, longest):
    cell = fill_runs.measure(LONG, name, ("legacy-0.2.0", "new:paged"), fill_runs.Plan([0], 2))
    assert shortest <= cell.shortest <= cell.longest <= longest


def test_a_pair_is_timed_in_turns_and_the_first_search_of_a_seed_is_not_counted(monkeypatch):
    seen = []

    def turns(steps, contents, latents, stopwatch):
        seen.append((list(contents), len(steps)))
        clocks = {}
        for name, each in zip(contents, (40.0, 10.0), strict=True):
            slow = [1e9] * 3 if name == "legacy-0.2.0" else [1.0] * 3
            clocks[name] = SearchClock(stopwatch.time, slow + [each] * 6, [], [1] * 3 + [9] * 5 + [11])
        return clocks

    monkeypatch.setattr(fill_runs, "take_turns", turns)
    cell = fill_runs.measure(LONG, "full", ("legacy-0.2.0", "new:slab"), fill_runs.Plan([0, 1], 2))
    assert [names for names, _ in seen] == [["legacy-0.2.0", "new:slab"]] * 2
    assert (cell.ratio, cell.by_seed) == ((4.0, 4.0, 4.0), [4.0, 4.0])
    assert (cell.baseline_us, cell.us) == (0.04, 0.01)
    assert (cell.shortest, cell.longest) == (9, 11)


def test_json_has_all_numbers(tmp_path, capsys):
    run("--fill", "sliding", "--backend", "new:slab", "--no-check", "--json", str(tmp_path / "fill.json"))
    found = json.loads((tmp_path / "fill.json").read_text())
    assert (found["against"], found["lightzero"], found["seeds"]) == ("legacy-0.2.0", False, [0, 1])
    assert found["machine"]["cores"] > 0
    assert [(each["geometry"], each["fill"], each["backend"]) for each in found["cells"]] == [
        (geometry, "sliding", "new:slab") for geometry in ("cartpole", "wide")
    ]
    for cell in found["cells"]:
        low, middle, high = cell["ratio"]
        assert 0 < low <= middle <= high
        assert len(cell["by_seed"]) == 2


def test_markdown_has_the_worst_and_the_best_fill_of_each_geometry():
    def cell(name, backend, middle):
        return fill_runs.Cell("wide", name, backend, 37, 37, 9.0, 3.0, (middle - 1, middle, middle + 1), [middle])

    ratios = {"new:paged": (9.0, 2.5), "new:slab": (8.0, 2.25), "new:private": (2.0, 2.75)}
    cells = [cell(name, each, ratios[each][at]) for at, name in enumerate(("start", "sliding")) for each in ratios]
    result = fill_tables.Result({}, "a machine", "2026-11-26", "legacy-0.2.0", fill_runs.Plan(), cells)
    text = fill_tables.markdown(result)
    readme, docs = text.split("docs/storages.md:")
    assert (
        "| wide | 20 | sliding | **2.5 (1.5 to 3.5)** | private 2.8 (1.8 to 3.8) | start 9.0 (8.0 to 10.0) |" in readme
    )
    assert "| wide | start | 37 | 9 | 9.0 (8.0 to 10.0) | 8.0 (7.0 to 9.0) | 2.0 (1.0 to 3.0) |" in docs
    assert len([line for line in docs.splitlines() if line.startswith("|")]) == 4


def test_the_forward_over_a_batch_is_measured_against_legacys(capsys):
    run("--fill", "sliding", "--backend", "new:paged", "--no-check", "--forward")
    output = capsys.readouterr().out
    assert "forward over each batch / over legacy's" in output
    _, rows = table(output)
    assert all(re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", row[-1]) for row in rows.values())


def test_a_layout_whose_tokens_are_apart_is_said_beside_its_forward(capsys, monkeypatch):
    monkeypatch.setitem(registry.BACKENDS, "new:paged", TokenMajor)
    run("--fill", "sliding", "--backend", "new:paged", "--no-check", "--forward")
    _, rows = table(capsys.readouterr().out)
    assert rows["wide", "sliding"][-1].endswith(f", {2 * 2 * 16 * 17 * 4} strided bytes")


def test_wrong_contents_end_it_before_anything_is_timed(monkeypatch):
    monkeypatch.setitem(registry.BACKENDS, "new:slab", AnotherRow)
    monkeypatch.setattr(fill, "measure", lambda *_: pytest.fail("timed"))
    with pytest.raises(SystemExit, match="cartpole, start, new:slab: wrong contents: "):
        run()


def test_processor_time_is_said_and_counts_no_waiting(capsys):
    waiting, working = (fill_runs.Plan(processor_time=each).stopwatch.time(time.sleep, 0.05)[1][0] for each in (0, 1))
    assert working < 10_000_000 < waiting
    run("--fill", "start", "--backend", "new:slab", "--no-check", "--processor-time")
    assert "legacy-0.2.0 / backend: processor time, median" in capsys.readouterr().out


def test_lightzero_has_no_layout_of_its_own_to_compare():
    with pytest.raises(SystemExit, match="leave --against out"):
        run("--forward", "--against", "lightzero")


@pytest.mark.skipif(importlib.util.find_spec("lzero") is not None, reason="LightZero is installed")
def test_without_lightzero_it_says_where_it_is():
    with pytest.raises(Exception, match=r"LightZero 0\.2\.0 is not installed: run this in 'tox -e lightzero"):
        run("--against", "lightzero")
