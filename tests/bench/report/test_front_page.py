"""The front page's answers: two commits compared, what still stands, new against legacy, and what was not measured."""

import json
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest
from asv_files import commit_name, write_results
from git_history import make_history
from pages import Page, read_csv
from replay_files import replay, tiny

from kvbench.judge.row import Row
from kvbench.judge.verdict import Verdict
from kvbench.report import Inputs, build_report

BYTES, TIME = "operations.Operations.track_bytes_reserved", "operations.Operations.track_time"
UNITS = {BYTES: "bytes"}
PARAMS = ("operation", "geometry", "backend")
COMMITS = 12


def cell(operation="store", geometry="pong", backend="new:paged"):
    return operation, geometry, backend


@pytest.fixture
def history(tmp_path):
    """Makes a report of values by benchmark and cell, and its front page; the names of its commits."""
    repository, names = make_history(tmp_path / "repository", [f"change {place}" for place in range(COMMITS)])

    def made(values, **options):
        listed = {
            (name, each): [float("nan")] * COMMITS  # asv has a value for each combination
            for name in {name for name, _ in values}
            for each in product(*zip(*[own for benchmark, own in values if benchmark == name], strict=True))
        }
        listed |= {key: np.asarray(each, float).tolist() for key, each in values.items()}
        results = write_results(tmp_path / "results", listed, commits=names, units=UNITS, param=PARAMS)
        pages = build_report(Inputs(results, repository=repository, **options), tmp_path / "html")
        return Page(pages[0])

    return made, names


def steps(*levels):
    """A series that has each level for as many commits."""
    return np.repeat(levels, COMMITS // len(levels))


def section(page, name):
    """The text of one of the cards."""
    start = page.source.index(f'id="{name}"')
    return page.source[start : page.source.index("</section>", start)]


def test_the_last_commit_against_the_one_before_it(history):
    made, names = history
    page = made(
        {
            (BYTES, cell()): [100] * 11 + [150],
            (BYTES, cell(geometry="wide")): [100] * 11 + [101],
            (BYTES, cell(backend="new:slab")): [100] * 11 + [50],
            (BYTES, cell("clear")): [100] * 12,
            (TIME, cell()): [1.0] * 12,
        }
    )
    text = section(page, "last-commit")
    assert "Is the last measured commit worse?" in text
    assert "worse in 2" in text
    assert f"<b>{names[11][:8]}</b> (newest): change 11" in text
    assert f"against <b>{names[10][:8]}</b> (1 commit ago): change 10" in text
    assert page.shown["last-commit"][1:] == [["counters", "2", "1", "1", "0"], ["times", "0", "0", "0", "1"]]
    # Named by metric, geometry and storage, the worst first; a better one behind all worse ones.
    assert text.index("+50 % (100 to 150 bytes)") < text.index("-50 % (100 to 50 bytes)")
    assert "store bytes reserved" in text
    assert "pong · new:paged and 1 more" in text
    assert f"git checkout {names[11][:8]} &amp;&amp; kvbench gate --base {names[10][:8]}" in text


@pytest.mark.parametrize(("base", "head"), [(2, 7), (7, 2), (1, 11)])
def test_any_two_commits_and_their_numbers_are_those_of_the_file(tmp_path, history, base, head):
    made, names = history
    values = {(BYTES, cell(geometry=f"g{number}")): np.arange(12) * (number + 1.5) + 7 for number in range(5)}
    page = made(values, base=names[base][:9], head=f"{names[head]}^{{commit}}")
    assert "Two commits" in section(page, "last-commit")
    rows = read_csv(tmp_path / "html" / "data" / "pair.csv")
    files = [json.loads((tmp_path / "results" / "vm" / f"{names[each]}-env.json").read_text()) for each in (base, head)]
    known = [sorted(x for x in file["results"][BYTES][0] if x is not None) for file in files]
    assert sorted(float(row["base"]) for row in rows) == known[0]
    assert sorted(float(row["head"]) for row in rows) == known[1]
    for row in rows:
        assert float(row["change, %"]) == pytest.approx(100 * (float(row["head"]) / float(row["base"]) - 1))
        assert row["verdict"] == ("worse" if head > base else "better")


def test_what_still_stands_comes_first_and_mended_ones_are_folded_away(history):
    made, names = history
    page = made(
        {
            (BYTES, cell(geometry="mended")): steps(100, 900, 100),
            (BYTES, cell(geometry="stands")): steps(100, 300),
            (BYTES, cell(backend="new:slab")): steps(100, 800, 120),  # most of it was taken back
            (BYTES, cell("clear")): steps(200, 100),
        }
    )
    text = section(page, "worst-standing")
    assert [text.index(each) for each in ("+200 %", "+20 %")] == sorted(
        text.index(each) for each in ("+200 %", "+20 %")
    )
    assert f"since {names[6][:8]}" in text
    assert "1 mended" in text
    assert "mended ·" not in text
    assert "+700" not in text
    assert [(row["still, %"], row["at the step, %"]) for row in page.rows("standing")] == [
        (pytest.approx(200), pytest.approx(200)),
        (pytest.approx(20), pytest.approx(700)),
    ]
    assert [row["since"] for row in page.rows("mended")] == [names[4][:8]]
    assert "<details open>" not in page.source[page.source.index('id="mended"') :].partition("</section>")[0]


@pytest.mark.parametrize(("ends", "verdict"), [((3, 4), "with the environment"), ((1, 4), "worse"), ((4, 1), "better")])
def test_a_change_of_the_environment_is_named_and_no_commit_is_blamed_for_it(tmp_path, ends, verdict):
    old, new = ({"python": each, "params": {"python": each}} for each in ("3.11", "3.12"))
    values = {
        ("x.track_operations", "new"): [4.0] * 2 + [0.0, 0.0] + [9.0] * 2,
        ("x.track_bytes", "new"): [4.0] * 2 + [5.0] * 2 + [6.0] * 2,
    }
    units = {"x.track_operations": "operations", "x.track_bytes": "bytes"}
    results = write_results(tmp_path / "r", values, units=units, environments=[old] * 4 + [new] * 2)
    base, head = map(commit_name, ends)
    build_report(Inputs(results, repository=tmp_path, base=base, head=head), tmp_path / "html")
    page = Page(tmp_path / "html" / "index.html")
    assert "Measured with another environment: python 3.1" in section(page, "last-commit")
    rows = {row["metric"]: row["verdict"] for row in read_csv(tmp_path / "html" / "data" / "pair.csv")}
    assert rows["x.bytes"] == verdict


def test_of_another_project_nothing_is_said_of_caches(tmp_path):
    values = {(f"suite.time_{name}", each): [1.0] * 6 + [20.0] * 6 for name in ("a", "b") for each in ("x", "y")}
    results = write_results(
        tmp_path / "results", values, param="size", units=dict.fromkeys((n for n, _ in values), "us")
    )
    page = Page(build_report(Inputs(results, repository=tmp_path), tmp_path / "html")[0])
    assert '<span class="badge">times not decided' in page.source
    assert "Times are decided with 3 measured commits on either side." in page.text
    assert 'id="gaps"' not in page.source
    assert not [word for word in ("kvbench gate", "legacy", "replay", "counters") if word in page.text]
    assert "20 times" in section(page, "worst-standing")
    assert "suite.time_a" in section(page, "worst-standing")


def test_a_regression_whose_last_value_is_back_is_not_the_worst(tmp_path):
    values = {("suite.time_a", "x"): [1.0] * 6 + [20.0] * 5 + [0.9], ("suite.time_b", "x"): [1.0] * 6 + [9.0] * 6}
    results = write_results(tmp_path / "results", values, param="size")
    page = Page(build_report(Inputs(results, repository=tmp_path), tmp_path / "html")[0])
    text = section(page, "worst-standing")
    assert text.index("time_b") < text.index("time_a") < text.index("back in the last value")
    rows = read_csv(tmp_path / "html" / "data" / "standing.csv")
    assert [float(row["last"]) for row in rows] == [9.0, 0.9]


def test_memory_is_not_called_a_time(tmp_path):
    values = {("suite.time_a", "x"): [1.0] * 6, ("suite.peakmem_a", "x"): [1e6] * 6}
    units = {"suite.time_a": "seconds", "suite.peakmem_a": "bytes"}
    results = write_results(tmp_path / "results", values, param="size", units=units)
    text = section(Page(build_report(Inputs(results, repository=tmp_path), tmp_path / "html")[0]), "last-commit")
    assert "measured values not decided" in text
    assert "Measured values are decided with 3 measured commits on either side." in text
    assert "times" not in text


def test_nothing_empty_is_drawn(history):
    made, _ = history
    page = made({("suite.track_score", cell()): steps(1.0, 1.0)})
    assert "None." in section(page, "worst-standing")
    for name in ("against-legacy", "stale-hits", "standing", "mended", "gate", "verdicts"):
        assert f'id="{name}"' not in page.source
    assert "legacy" not in page.text


RATES = ("miss_rate", "stale_hit_rate", "context_mismatch_rate")
SMALL = {"legacy": (0.0, 38.0, 12.0), "new:paged": (38.0, 0.0, 12.0)}


def against_legacy(folder, commits):
    """The front page of a history of replays: new is 4 times as fast and as small, and misses where legacy lies."""
    values, units = {}, {}
    for backend in ("legacy", "new:paged"):
        whole = {
            "step_time_over_legacy": 1.0 if backend == "legacy" else 0.25,
            "bytes_reserved": 400.0 if backend == "legacy" else 100.0,
            **dict.fromkeys(RATES, 0.0),
            **{f"{name}_in_small_pool": value for name, value in zip(RATES, SMALL[backend], strict=True)},
        }
        for name, value in whole.items():
            benchmark = f"replays.Replays.track_{name}"
            values[benchmark, ("synthetic-pong", backend, "cpu")] = [value] * commits
            units[benchmark] = "ratio" if "over" in name else "bytes" if "bytes" in name else "%"
    results = write_results(folder / "results", values, units=units, param=("trace", "backend", "device"))
    return Page(build_report(Inputs(results, repository=folder), folder / "html")[0])


def test_new_against_legacy_is_one_table_of_six_rows(tmp_path):
    page = against_legacy(tmp_path, 8)
    _, _, *rows = page.shown["against-legacy"]
    named = {row[0].split("\n")[0]: [" ".join(text.split()) for text in row] for row in rows}
    assert len(named) == 6
    (pong,) = [row for name, row in named.items() if name.startswith("pong")]
    times = "4\N{MULTIPLICATION SIGN}"
    assert pong[0] == "pongsmall pool"
    assert pong[1].startswith(f"{times} 3.")  # from its history's spread: 3.9 to 4.1
    assert "not decided" not in pong[1]
    assert pong[2:] == [times, "50 % 50 %", "0 % 38 %", "38 % 0 %"]
    assert all(row[1] == "not measured" for name, row in named.items() if not name.startswith("pong"))
    (row, small) = page.rows("verdicts")
    assert (row["p25"] < 4 < row["p75"], row["verdict"]) == (True, "better")
    assert small["slots"] == "small pool"
    assert "Lookups in a small pool" in page.text


def test_one_commit_has_no_spread(tmp_path):
    page = against_legacy(tmp_path, 1)
    assert "not decided: no spread is known" in page.source
    assert 'id="last-commit"' not in page.source  # there is none before it


def gate_file(path, base, head, *rows):
    listed = [asdict(each) for each in rows]
    content = {"base": base, "machine": {"kvcache_commit": head}, "pairs": 5, "seconds": 1.0, "rows": listed}
    path.write_text(json.dumps({"format": "kvcache-gate", "schema_version": 1, **content}))
    return path


SLOWER = Row("test_operation[new:slab-pong-store]", "time", Verdict.WORSE, 1.0, 1.4, 1.4, 1.3, 1.5, 5)
EQUAL = Row("test_operation[new:slab-pong-store]", "tensor_ops", Verdict.SAME, 2, 2)


def test_the_gate_decides_times_of_the_same_two_commits(tmp_path, history):
    made, names = history
    gate = gate_file(tmp_path / "gate.json", names[10], names[11], SLOWER, EQUAL)
    page = made({(TIME, cell()): steps(1.0, 1.0)}, gate=gate)
    assert page.shown["last-commit"][1:] == [
        ["times", "0", "0", "0", "1"],
        ["counters, gate", "0", "0", "1", "0"],
        ["times, gate", "1", "0", "0", "0"],
    ]
    text = section(page, "last-commit")
    assert "worse in 1" in text
    assert "+40 %" in text
    assert "The gate decides" not in text


def test_a_gate_of_other_commits_is_told_apart(tmp_path, history):
    made, names = history
    gate = gate_file(tmp_path / "gate.json", names[2], names[3], SLOWER)
    page = made({(TIME, cell()): steps(1.0, 1.0)}, gate=gate)
    text = section(page, "last-commit")
    assert f"times, gate<small>{names[2][:8]}..{names[3][:8]}</small>" in text
    assert ">times not decided<" in text
    assert "+40 %" not in text
    assert page.rows("gate")[0]["ratio"] == 1.4


def test_a_gate_alone_is_something_to_report(tmp_path):
    gate = gate_file(tmp_path / "gate.json", "a" * 40, "b" * 40, SLOWER, EQUAL)
    page = Page(build_report(Inputs(gate=gate, repository=tmp_path), tmp_path / "html")[0])
    assert "worse in 1" in section(page, "last-commit")
    assert page.rows("gate")[0]["verdict"] == "worse"


def test_small_pools_alone_say_nothing_of_usual_ones(tmp_path):
    file = replay(tiny(tmp_path / "trace.parquet"), tmp_path / "replay.json", "--repetitions", "1", "--capacity", "5")
    build_report(Inputs(None, [file], [], [], repository=tmp_path), tmp_path / "html")
    assert "\N{MULTIPLICATION SIGN}</span>" not in (tmp_path / "html" / "index.html").read_text()
