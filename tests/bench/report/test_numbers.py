"""Numbers on pages and in their data are those of the files that the report was made of."""

import pytest
from asv_files import commit_name
from made_reports import HISTORY
from pages import Page, read_csv
from replay_files import replay, synthetic

from kvbench.capacity.bounds import Future
from kvbench.report import Inputs, build_report
from kvbench.report.text import number
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps

OUTCOMES = ("hit", "stale_hit", "context_mismatch", "miss", "wrong_content")


def table(pages, start, inside=""):
    """The name and the rows of the one panel, on whichever page, that is called so."""
    found = [
        (name, page) for page in pages.values() for name in page.tables if name.startswith(start) and inside in name
    ]
    assert len(found) == 1, found
    name, page = found[0]
    return name, page.rows(name)


def test_latencies(made):
    replays, pages, _ = made
    page = pages["backends"]
    steps = [name for name in page.tables if name.startswith("step-") and "default" in name]
    assert len(steps) == 1
    rows = {(row["backend"], row["operation"]): row for row in page.rows(steps[0])}
    for backend in replays[0]["backends"]:
        for operation, found in backend["latency_us"].items():
            row = rows[backend["name"], operation.replace("_", " ")]
            assert [row[f"{each}, us"] for each in ("p50", "p95", "p99")] == [
                found[each] for each in ("p50", "p95", "p99")
            ]
            assert row["calls"] == found["samples"]
        ratio = replays[0]["baseline_over_backend"][backend["name"]]
        assert rows[backend["name"], "recurrent step"]["times as fast as legacy"] == ratio["median"]
    # What is shown is what is meant, to four digits.
    for shown, exact in zip(page.shown[steps[0]], page.tables[steps[0]], strict=True):
        for text, value in zip(shown, exact, strict=True):
            assert not isinstance(value, float) or text == number(value)


def test_distributions(made):
    replays, pages, folder = made
    name, rows = table(pages, "latency-", "default-store")
    data = read_csv(folder / "html" / "data" / f"{name}.csv")
    for backend in replays[0]["backends"]:
        percentiles, heading = backend["latency_us"]["store"]["percentiles"], f"{backend['name']}, us"
        assert [float(row[heading]) for row in data] == percentiles
        assert [row[heading] for row in rows] == [percentiles[int(row["percentile"])] for row in rows]


def test_outcomes(made):
    replays, pages, _ = made
    rows = {(row["slots"], row["backend"]): row for row in table(pages, "outcomes-")[1]}
    assert len(rows) == 2 * len(replays)
    for each in replays:
        for backend in each["backends"]:
            total = backend["outcomes"]["total"]
            row = rows[each["capacity"]["label"], backend["name"]]
            for outcome in OUTCOMES:
                assert row[outcome.replace("_", " ")] == total[outcome]
                assert row[f"{outcome.replace('_', ' ')}, %"] == pytest.approx(100 * total[f"{outcome}_rate"], abs=1e-9)


@pytest.mark.parametrize(("unit", "field"), [("entries", "recur"), ("bytes", "recur_bytes")])
def test_hit_rate_against_capacity(made, unit, field):
    replays, pages, folder = made
    rows = {row[f"recurrent pool, {unit}"]: row for row in table(pages, "capacity-", f"-{unit}-")[1]}
    chosen = [each for each in replays if each["capacity"][field]]
    assert len(chosen) == 2
    asked = Future(list(read_steps(TraceReader(folder / "trace.parquet").events())), "recur")

    def bound(found):
        return pytest.approx(100 * found / asked.lookups)

    for each in chosen:
        row = rows[each["capacity"][field]]
        for backend in each["backends"]:
            total = backend["outcomes"]["total"]
            assert row[f"{backend['name']}, hits, %"] == pytest.approx(100 * total["hit_rate"], abs=1e-9)
            assert row[f"{backend['name']}, stale hits, %"] == pytest.approx(100 * total["stale_hit_rate"], abs=1e-9)
        assert row["unbounded, %"] == bound(asked.found)
        if unit == "entries":
            assert row["Belady, %"] == pytest.approx(
                100 * asked.found_by_belady(each["capacity"][field]) / asked.lookups
            )
        else:
            # 8 KiB an entry of 8 tokens (SPEC 1), of which a step adds 2.
            assert row["Belady, full entries, %"] == pytest.approx(
                100 * asked.found_by_belady(each["capacity"][field] // 8192) / asked.lookups
            )
            assert row["Belady, added tokens alone, %"] == pytest.approx(
                100 * asked.found_by_belady(each["capacity"][field] // 2048) / asked.lookups
            )


def test_memory_and_occupancy_over_a_replay(made):
    replays, pages, folder = made
    name, rows = table(pages, "memory-", "default")
    data = read_csv(folder / "html" / "data" / f"{name}.csv")
    for row, backend in zip(rows, replays[0]["backends"], strict=True):
        assert row["together, bytes"] == sum(backend["bytes_reserved"].values())
        assert row["peak, bytes"] == backend["peak_bytes"]
        mine = [each for each in data if each["backend"] == backend["name"]]
        for pool, sizes in backend["timeline"]["bytes_reserved"].items():
            assert [float(each[f"bytes, {pool}"]) for each in mine] == sizes
        assert [float(each["inferences done"]) for each in mine] == backend["timeline"]["steps"]
    name, rows = table(pages, "occupancy-", "default-recur")
    data = read_csv(folder / "html" / "data" / f"{name}.csv")
    for backend in replays[0]["backends"]:
        entries, heading = backend["timeline"]["entries"]["recur"], f"{backend['name']}, keys"
        assert [float(row[heading]) for row in data] == entries
        assert [row[heading] for row in (rows[0], rows[-1])] == [entries[0], entries[-1]]


def test_where_stale_hits_fall(made):
    replays, pages, _ = made
    legacy = next(each for each in replays if each["capacity"]["label"] == "recur=20")["backends"][0]
    for axis in ("simulation", "depth"):
        _, rows = table(pages, "places-", f"recur-20-legacy-{axis}")
        counts = legacy["timeline"][f"by_{axis}"]
        assert [row["stale hit"] for row in rows] == [each["stale_hit"] for each in counts]
        assert [row[axis] for row in rows] == [each[axis] for each in counts]
        assert sum(row["stale hit"] for row in rows) == legacy["outcomes"]["total"]["stale_hit"] > 0


def test_a_picture_that_is_the_same_for_several_backends_stands_once(tmp_path):
    trace = synthetic(tmp_path / "trace.parquet")
    file = replay(
        trace, tmp_path / "replay.json", "--repetitions", "1", "--capacity", "recur=20", "--backend", "new:slab",
        "--eviction", "fifo",
    )  # fmt: skip
    pages = build_report(Inputs(None, [file], [], [trace], repository=tmp_path), tmp_path / "html")
    (page,) = [Page(each) for each in pages if each.name.startswith("trace-")]
    assert "Where lookups of new, new:slab fall, by depth" in page.text
    assert sum(name.startswith("places-") for name in page.tables) == 4


def test_verdicts(made):
    replays, pages, _ = made
    rows = {row["slots"]: row for row in pages["index"].rows("verdicts")}
    for each in replays:
        legacy, new = each["backends"]
        row = rows[each["capacity"]["label"]]
        assert row["times faster"] == each["baseline_over_backend"]["new"]["median"]
        assert row["times fewer bytes"] == sum(legacy["bytes_reserved"].values()) / sum(new["bytes_reserved"].values())
        assert row["stale hits, %"] == 0
        assert row["legacy's stale hits, %"] == pytest.approx(
            100 * legacy["outcomes"]["total"]["stale_hit_rate"], abs=1e-9
        )
    median = replays[0]["baseline_over_backend"]["new"]["median"]
    (row,) = [each for each in pages["index"].shown["against-legacy"] if "cartpole" in each[0]]
    assert f"{median:.3g}\N{MULTIPLICATION SIGN}" in row[1]


def test_histories_and_steps(made):
    _, pages, folder = made
    rows = pages["histories"].rows("history-vm-x-track-bytes")
    assert [row["new"] for row in rows] == HISTORY["x.track_bytes_reserved", "new"]
    assert [row["legacy"] for row in rows] == HISTORY["x.track_bytes_reserved", "legacy"]
    data = read_csv(folder / "html" / "data" / f"{pages['histories'].panel('history-vm-operations')}.csv")
    assert [float(row["new"]) for row in data] == HISTORY["operations.Growth.track_time", "new"]
    (step,) = pages["regressions"].rows("change-points-worse")
    assert (step["before"], step["after"], step["certainty, %"]) == (100.0, 250.5, 100.0)
    assert step["change, %"] == pytest.approx(150.5)
    assert step["commit"] == commit_name(2)[:8]


def test_every_plot_has_its_table_its_data_and_its_command(made):
    _, pages, folder = made
    for page in pages.values():
        for name in page.tables.keys() - {"last-commit", "against-legacy"}:  # whose data is that of tables below
            rows = read_csv(folder / "html" / "data" / f"{name}.csv")
            assert rows or name == "change-points-better", name
        sections = [each for each in page.source.split('<section class="panel')[1:] if "data-compared" not in each]
        assert all("<table" in section or "None." in section for section in sections)
        assert all("Command that made it" in section for section in sections if "<svg" in section)


def test_every_link_within_the_report_leads_somewhere(made):
    _, pages, folder = made
    for page in pages.values():
        for link in page.links:
            file, _, anchor = link.partition("#")
            if link.startswith("data:"):
                continue
            assert not file or (folder / "html" / file).is_file(), link
            if anchor:
                target = page.source if not file else (folder / "html" / file).read_text()
                assert f'id="{anchor}"' in target, link
