"""New against legacy in a line: which word, which line for a geometry, and where legacy lies."""

from dataclasses import replace

import pytest
from asv_files import write_results

from kvcache.report.commits import Commits
from kvcache.report.history import read_history
from kvcache.report.verdicts import Verdict, from_history, headlines, verdict_table, where_legacy_lies

VERDICT = Verdict(
    "pong", "cpu", "a.parquet", "recorded", "default", "new", 3.0, (2.5, 3.5), 4.0, (100.0, 100.0), (0.0, 0.0), "a.json"
)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "better"),
        ({"faster": 0.5, "quartiles": (0.4, 0.6)}, "mixed"),
        ({"faster": 0.5, "quartiles": (0.4, 0.6), "smaller": 0.5}, "worse"),
        ({"faster": 0.5, "quartiles": (0.4, 0.6), "smaller": 0.5, "stale": (0.0, 40.0)}, "mixed"),
        ({"stale": (1.0, 0.0)}, "mixed"),
        ({"faster": 1.1, "quartiles": (0.9, 1.3), "smaller": 1.0}, "even"),
        ({"faster": None, "quartiles": None, "smaller": None}, "even"),
        ({"faster": 2.0, "quartiles": None, "smaller": None}, "better"),
    ],
)
def test_the_word_says_what_all_metrics_say(changes, word):
    assert replace(VERDICT, **changes).word == word


def test_the_sentence_has_the_numbers():
    sentence = replace(VERDICT, stale=(0.0, 40.08)).sentence
    for part in ("3 times as fast", "quartiles 2.5 to 3.5", "4 times fewer bytes", "stale hits 0 % (legacy 40.08 %)"):
        assert part in sentence
    assert "not timed" in replace(VERDICT, faster=None, quartiles=None).sentence


def test_one_line_for_each_geometry_and_device():
    synthetic = replace(VERDICT, kind="synthetic", faster=9.0)
    small = replace(VERDICT, capacity="recur=50", faster=8.0)
    slab = replace(VERDICT, backend="new:slab", faster=7.0)
    asv = replace(VERDICT, source="asv, vm, abc", faster=6.0)
    other = replace(VERDICT, geometry="cartpole")
    device = replace(VERDICT, device="cuda", capacity="recur=50")
    found = headlines([synthetic, small, slab, asv, VERDICT, device, other])
    assert [(each.geometry, each.device, each.faster) for each in found] == [
        ("cartpole", "cpu", 3.0), ("pong", "cpu", 3.0), ("pong", "cuda", 3.0),
    ]  # fmt: skip


def test_the_pools_in_which_legacy_has_most_stale_hits():
    some = replace(VERDICT, capacity="recur=50", stale=(0.0, 40.0), hit=(51.0, 51.0))
    more = replace(VERDICT, capacity="recur=20", stale=(0.0, 60.0), hit=(30.0, 31.0))
    other = replace(more, backend="new:slab", stale=(0.0, 70.0))
    told = where_legacy_lies(VERDICT, [VERDICT, some, more, other])
    assert told == "With slots recur=20: hits 30 % (legacy 31 %), stale hits 0 % (legacy 60 %)."
    assert where_legacy_lies(VERDICT, [VERDICT]) == ""


def test_from_asv_where_no_replay_is(tmp_path):
    names = ("step_time_over_legacy", "bytes_reserved", "miss_rate", "stale_hit_rate", "context_mismatch_rate")
    numbers = {"legacy": (1.0, 400.0, 0.0, 40.0, 9.0), "new:paged": (0.25, 100.0, 40.0, 0.0, 9.0)}
    units = dict(zip(names, ("ratio", "bytes", "%", "%", "%"), strict=True))
    values = {}
    for backend, each in numbers.items():
        params = f"synthetic-visual-match, backend={backend}, device=cpu"
        for name, number in zip(names, each, strict=True):
            values[f"replays.Replays.track_{name}", params] = [5.0, number]
    folder = write_results(
        tmp_path, values, units={f"replays.Replays.track_{name}": unit for name, unit in units.items()}, param="trace"
    )
    (verdict,) = from_history(read_history(folder, Commits()))
    assert (verdict.geometry, verdict.device, verdict.kind) == ("visual-match", "cpu", "synthetic")
    assert (verdict.faster, verdict.smaller, verdict.quartiles) == (4.0, 4.0, None)
    assert verdict.hit == (51.0, 51.0)
    assert verdict.stale == (0.0, 40.0)
    assert verdict.word == "better"


def test_the_table_has_every_number():
    table = verdict_table([VERDICT])
    row = dict(zip(table.headings, table.rows[0], strict=True))
    assert (row["times faster"], row["p25"], row["p75"], row["times fewer bytes"]) == (3.0, 2.5, 3.5, 4.0)
    assert row["verdict"] == "better"
