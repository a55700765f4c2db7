"""New against legacy in a line: which word, which line for a geometry, and where legacy lies."""

from dataclasses import replace

import pytest
from asv_files import write_results

from kvbench.history.commits import Commits
from kvbench.history.series import read_history
from kvbench.report.against_legacy import smallest_pool
from kvbench.report.comparisons import Comparison, comparison_table, from_history, headlines
from kvbench.results.replay import OUTCOMES

RATES = dict.fromkeys(OUTCOMES, (0.0, 0.0)) | {"hit": (100.0, 100.0)}
PONG = Comparison("pong", "cpu", "a.parquet", "recorded", "default", "new", 3.0, (2.5, 3.5), 4.0, RATES, "a.json", 4e9)


def with_rates(**changes):
    """PONG with other rates."""
    return {"rates": RATES | changes}


SLOW = {"faster": 0.5, "quartiles": (0.4, 0.6)}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "better"),
        (SLOW, "mixed"),
        ({**SLOW, "smaller": 0.5}, "worse"),
        ({**SLOW, "smaller": 0.5, **with_rates(stale_hit=(0.0, 40.0))}, "mixed"),
        (with_rates(stale_hit=(1.0, 0.0)), "mixed"),
        # Wrong content outweighs everything; as much of it as legacy returns does not.
        (with_rates(wrong_content=(0.5, 0.0)), "worse"),
        # Half a percent of the lookups is a difference; what is less than a hundredth is rounding.
        (with_rates(hit=(99.5, 100.0)), "mixed"),
        (with_rates(hit=(99.98, 100.0)), "mixed"),
        (with_rates(hit=(99.995, 100.0)), "better"),
        (with_rates(wrong_content=(0.5, 0.5)), "better"),
        # No stale hits because it never hits.
        (with_rates(hit=(0.0, 51.0), stale_hit=(0.0, 40.0), miss=(100.0, 9.0)), "mixed"),
        (with_rates(hit=(51.0, 51.0), stale_hit=(0.0, 40.0), miss=(49.0, 9.0)), "better"),
        # A time decides by its quartiles, and by 5 % or more.
        ({"faster": 1.1, "quartiles": (0.9, 1.3), "smaller": 1.0}, "time not decided"),
        ({"faster": 1.1, "quartiles": (0.9, 1.3)}, "better in memory; time not decided"),
        (
            {"faster": 1.1, "quartiles": (0.9, 1.3), **with_rates(stale_hit=(0, 4))},
            "better in memory and stale hits; time not decided",
        ),
        ({"faster": 1.04, "quartiles": (1.02, 1.06)}, "better in memory; time not decided"),
        ({"faster": 0.96, "quartiles": (0.95, 0.98), "smaller": 0.5}, "worse in memory; time not decided"),
        ({"faster": 2.0, "quartiles": None, "smaller": None}, "time not decided"),
        ({"faster": None, "quartiles": None}, "better in memory; not timed"),
        # Memory is counted: by however little.
        ({"smaller": 0.999}, "mixed"),
        ({"smaller": 1.0}, "better"),
        ({**SLOW, "smaller": 1.0}, "worse"),
        ({**SLOW, "smaller": 1.001}, "mixed"),
    ],
)  # fmt: skip
def test_the_word_says_what_all_metrics_say(changes, word):
    changed = replace(PONG, **changes)
    assert changed.word == word
    assert changed.tone == (word if word in ("better", "worse") else "mixed")


def test_one_line_for_each_geometry_and_device():
    synthetic = replace(PONG, kind="synthetic", faster=9.0)
    small = replace(PONG, capacity="recur=50", faster=8.0)
    slab = replace(PONG, backend="new:slab", faster=7.0)
    asv = replace(PONG, source="asv, vm, abc", faster=6.0)
    other = replace(PONG, geometry="cartpole")
    device = replace(PONG, device="cuda", capacity="recur=50")
    found = headlines([synthetic, small, slab, asv, PONG, device, other])
    assert [(each.geometry, each.device, each.faster) for each in found] == [
        ("cartpole", "cpu", 3.0), ("pong", "cpu", 3.0), ("pong", "cuda", 3.0),
    ]  # fmt: skip


def test_the_largest_pools_in_which_legacy_has_stale_hits():
    lies = with_rates(stale_hit=(0.0, 40.0), hit=(51.0, 51.0), miss=(49.0, 9.0))
    some = replace(PONG, capacity="recur=50KB", size=5e4, **lies)
    more = replace(PONG, capacity="recur=20", size=2e4, **with_rates(stale_hit=(0.0, 60.0), hit=(30.0, 31.0)))
    none = replace(PONG, capacity="recur=100", size=1e5)
    other = replace(more, backend="new:slab", size=9e4)
    elsewhere = replace(some, capacity="recur=80", source="b.json", size=8e4)
    of_another_trace = replace(some, trace="b.parquet", size=9e5)
    everything = [PONG, elsewhere, more, some, none, other, of_another_trace]
    assert smallest_pool(PONG, everything) is some
    assert smallest_pool(PONG, [PONG, elsewhere]) is elsewhere
    assert smallest_pool(PONG, [PONG, of_another_trace]) is of_another_trace
    assert smallest_pool(PONG, [PONG, none, other]) is PONG
    own = replace(PONG, **with_rates(stale_hit=(0.0, 1.0)))
    assert smallest_pool(own, [own, some]) is own


NAMES = ("step_time_over_legacy", "bytes_reserved", "miss_rate", "stale_hit_rate", "context_mismatch_rate")
COMMITS = [f"{number:x}" * 40 for number in range(1, 4)]
NEW, LEGACY = (0.25, 100.0, 40.0, 0.0, 9.0), (1.0, 400.0, 0.0, 40.0, 9.0)


def from_asv(folder, commits):
    """Comparisons from a history: by trace, what each commit measured of legacy and of new (None: left out)."""
    values = {}
    for trace, measured in commits.items():
        for place, backend in enumerate(("legacy", "new:paged")):
            rows = [pair[place] or [float("nan")] * len(NAMES) for pair in measured]
            for name, numbers in zip(NAMES, zip(*rows, strict=True), strict=True):
                values[f"replays.Replays.track_{name}", (trace, backend, "cpu")] = list(numbers)
    units = {
        f"replays.Replays.track_{name}": unit
        for name, unit in zip(NAMES, ("ratio", "bytes", "%", "%", "%"), strict=True)
    }
    params = ("trace", "backend", "device")
    return from_history(
        read_history(write_results(folder, values, commits=COMMITS, units=units, param=params), Commits()), {}
    )


def test_from_asv_where_no_replay_is(tmp_path):
    (verdict,) = from_asv(tmp_path, {"synthetic-visual-match": [((5.0,) * 5, (5.0,) * 5), (LEGACY, NEW), (None, None)]})
    assert (verdict.geometry, verdict.device, verdict.kind) == ("visual-match", "cpu", "synthetic")
    assert (verdict.faster, verdict.smaller, verdict.quartiles) == (4.0, 4.0, None)
    assert verdict.rates["hit"] == (51.0, 51.0)
    assert verdict.rates["stale_hit"] == (0.0, 40.0)
    assert verdict.rates["miss"] == (40.0, 0.0)
    assert verdict.word == "better in memory and stale hits; time not decided"


def test_asv_numbers_are_of_one_commit_and_a_run_of_a_part_hides_nothing(tmp_path):
    nan = float("nan")
    untimed = ((nan, 800.0, *LEGACY[2:]), (nan, 100.0, *NEW[2:]))
    found = from_asv(
        tmp_path, {"pong": [(LEGACY, NEW), (None, None), untimed], "cartpole": [(LEGACY, NEW), (LEGACY, NEW), untimed]}
    )
    assert {each.geometry: each.source for each in found} == {
        "pong": "asv, vm, commit 11111111", "cartpole": "asv, vm, commit 22222222",
    }  # fmt: skip
    for each in found:
        assert each.smaller == 4.0  # not the last commit's bytes beside an earlier one's time


def test_asv_without_a_whole_commit_gives_no_verdict(tmp_path):
    assert from_asv(tmp_path, {"pong": [(LEGACY, None), (None, NEW), (None, None)]}) == []


def test_the_table_has_every_number():
    table = comparison_table([PONG])
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert (row["times faster"], row["p25"], row["p75"], row["times fewer bytes"]) == (3.0, 2.5, 3.5, 4.0)
    assert row["verdict"] == "better"
