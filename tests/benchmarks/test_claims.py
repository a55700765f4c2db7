"""Claims about time, with ample room: the figures of benchmarks/claims.py are far better."""

import re
import statistics
from dataclasses import replace

import claims
import cost_claims
import fill
import fill_runs
import fill_tables
import model_claims
import pool_claims
import pytest
import replay_claims
from claim_traces import synthetic
from overhead import EmptyBackend, gate_laps, operation_laps, replay_laps
from pool_claims import bookkeeping_ratios, clear_shares, clear_times

from kvbench.record.fills import FILLS
from kvbench.replay.drive import OPERATIONS
from kvbench.replay.operations import OPERATION_KINDS
from kvbench.replay.passes import Replay
from kvbench.replay.summary import ratio
from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy, Geometry, build_info

# The others are in Python: docs/policies.md has what they cost.
COMPILED = [EvictionStrategy.FIFO, EvictionStrategy.LRU, EvictionStrategy.PRIORITY]


@pytest.mark.parametrize("slots", [16, 4096])
@pytest.mark.parametrize("strategy", COMPILED, ids=lambda each: each.value)
def test_bookkeeping_costs_at_most_what_cachetools_does(strategy, slots):
    """Compiled; in Python alone it is within 2.5 times that."""
    bound = 1 if build_info().compiled else 2.5
    assert statistics.median(bookkeeping_ratios(strategy, pairs=5, slots=slots)) <= bound


def test_what_is_printed_of_bookkeeping(capsys, monkeypatch):
    for name, value in (("POOLS", (16,)), ("OPERATIONS", 100)):
        monkeypatch.setattr(pool_claims, name, value)
    claims.main(["bookkeeping"])
    output = capsys.readouterr().out
    ours = [*(each.name for each in EvictionStrategy), "random priorities"]
    peers = ours + ["lru-dict"] * (pool_claims.LRU is not None)
    assert re.findall(r"^16 slots, get \+ set, (.+): \d+\.\d\d times cachetools", output, re.MULTILINE) == peers


def test_a_clear_of_any_storage_takes_about_as_long_as_legacys():
    """Some 5 us of Python's calls; ``test_slots.py`` and ``test_paged.py`` show that it is O(1)."""
    times = {name: min(laps) for name, laps in clear_times(4, 5).items()}
    assert all(least < 4 * times["legacy"] for least in times.values()), times


def test_what_a_clear_leaves_to_be_freed_is_a_small_part_of_a_search():
    """Tokens are small here, and so is the rest of a search."""
    shares = clear_shares(4, 5)
    assert all(0 < clear < 5 and 0 <= later < 10 for clear, later in shares.values()), shares
    assert shares["new:paged"][1] > shares["new:slab"][1]


@pytest.mark.parametrize("geometry", ["cartpole", "pong"])
def test_a_recurrent_step_of_the_new_cache_is_no_slower_than_legacys(geometry):
    replay = Replay(
        synthetic(GEOMETRIES[geometry], seed=3, searches=2), CacheConfig(GEOMETRIES[geometry]), ["legacy", "new"]
    )
    replay.time(2)
    assert ratio(replay.reports["legacy"], replay.reports["new"])["median"] >= 1


@pytest.mark.slow
def test_the_harness_adds_less_than_a_microsecond_to_an_operation():
    geometry = replace(GEOMETRIES["cartpole"], num_simulations=5)  # short searches: many clears
    steps = synthetic(geometry, seed=3, searches=15)
    # Others on the machine only add to it: the least of three medians is the harness's own.
    in_replay = [replay_laps(steps, geometry, repetitions=1) for _ in range(3)]
    alone = [operation_laps(geometry, repetitions=30) for _ in range(3)]
    for runs, operations in ((in_replay, OPERATIONS), (alone, OPERATION_KINDS)):
        assert all(tuple(laps) == operations for laps in runs)
        for operation in operations:
            empty, new = (min(medians) for medians in zip(*(laps[operation] for laps in runs), strict=True))
            assert 0 < empty < 1, operation
            assert empty < new, operation  # it is new that works, and the empty one not


@pytest.mark.slow
def test_the_gate_adds_less_than_a_microsecond_to_a_call():
    runs = [gate_laps() for _ in range(2)]
    for what in ("operation", "call_of_a_replay"):
        assert 0 < min(laps[what] for laps in runs) < 1, what


def test_the_empty_backend_stands_in_for_any():
    """A replay drives it like another, and it neither keeps nor counts anything."""
    backend = EmptyBackend(CacheConfig(GEOMETRIES["cartpole"]))
    sizes = [0] * 8
    assert backend.lookup(range(8), backend.hash_states(None), None) == backend.assemble() == sizes
    assert len(backend.keys_values_wm) == backend.batch_bytes == 0


def test_what_is_printed(capsys):
    claims.main(["allocations"])
    assert "50 inserts x 10 clears: 50 slots allocated, 0 tensors after the first round" in capsys.readouterr().out


@pytest.fixture
def one_long_geometry(monkeypatch):
    """The replays' claims on one geometry, whose contexts are longer than its searches are deep."""
    shapes = {"long": Geometry("long", 1, 2, 16, 20, 2, 4, "absolute")}
    for module in (replay_claims, cost_claims, fill):
        monkeypatch.setattr(module, "GEOMETRIES", shapes)
    monkeypatch.setattr(fill_runs, "SIMULATIONS", 3)
    monkeypatch.setattr(fill_tables, "GEOMETRIES", shapes)
    monkeypatch.setattr(replay_claims, "SIMULATIONS", 4)
    monkeypatch.setattr(replay_claims, "TRACE_SEARCHES", 1)


@pytest.mark.parametrize("claim", ["storages", "hit-rate"])
def test_claims_about_steps_and_memory_name_every_fill(one_long_geometry, capsys, claim):
    claims.main([claim])
    output = capsys.readouterr().out
    for each in FILLS:
        lines = [line for line in output.splitlines() if re.search(rf"\b{each}\b", line) and "long" in line]
        assert lines, each
        assert all(re.search(r"\d", line) for line in lines)


@pytest.mark.slow
def test_steps_are_timed_on_a_recorded_search_and_on_every_fill(one_long_geometry, capsys):
    claims.main(["recurrent-step"])
    found = re.findall(r"recurrent step, ([^:]+): legacy / new \d+\.\d\d \(", capsys.readouterr().out)
    assert found == ["cartpole (recorded)", *(f"long ({each})" for each in FILLS)]


@pytest.fixture
def small_models(monkeypatch):
    """The model's claims, of geometries in which they take no time."""
    tiny = Geometry("tiny", 1, 2, 16, 8, 2, 5, "absolute")
    for name, value in {
        "GEOMETRIES": {name: replace(tiny, name=name) for name in ("cartpole", "pong", "visual-match")},
        "AFFORDABLE": ("cartpole",),
        "SEARCHES": 4,
        "SLIDING": (8, 6),
        "TIMED": {"cartpole": 4},
    }.items():
        monkeypatch.setattr(model_claims, name, value)


@pytest.mark.parametrize(
    ("claim", "geometries", "searches"), [("same-search", 3, 4), ("same-search-full", 1, 4), ("sliding", 1, 8)]
)
def test_every_cache_finds_what_legacy_does(small_models, capsys, claim, geometries, searches):
    claims.main([claim])
    lines = [line for line in capsys.readouterr().out.splitlines() if "the same actions and visits as legacy" in line]
    assert len(lines) == 2 * geometries
    for line in lines:
        assert [int(number) for number in re.findall(r"new:[\w-]+ (\d+) \(", line)] == [searches] * 5, line


def test_windows_slide_in_the_claim_that_says_so(small_models, capsys):
    claims.main(["sliding"])
    assert re.findall(r"(\d+) of 16 roots had a window that slid", capsys.readouterr().out) == ["7", "7"]


@pytest.mark.slow
def test_capacities_go_down_to_where_legacy_has_stale_hits(small_models, monkeypatch, capsys):
    monkeypatch.setattr(model_claims, "SEARCHES", 2)
    claims.main(["capacities"])
    output = capsys.readouterr().out
    for slots in (32, 16):  # of 8 simulations x 2 environments
        assert f"cartpole, {slots} recurrent slots, rotary: the same actions" in output
    assert int(re.search(r"pong, rotary, \d+ recurrent slots: legacy has (\d+) stale hits", output)[1]) > 0


def test_small_pools_differ_by_stale_hits_and_by_misses(small_models, capsys):
    claims.main(["small-pools"])
    output = capsys.readouterr().out
    shared = r"in (\d+) of 4 searches; .* misses there on purpose in (\d+)"
    legacy = re.findall(rf"legacy: (\d+) stale hits, .* {shared}", output)
    new = re.findall(rf"(\d+) misses, .* {shared}", output)
    assert (len(legacy), len(new)) == (2, 10)
    for lost, same, on_purpose in legacy + new:
        assert int(lost) > 0
        assert (int(same) < 4, on_purpose) == (True, "4")


def test_validation_is_timed_for_both_caches(small_models, capsys):
    claims.main(["validation"])
    found = re.findall(r"cartpole, ([\w:]+): a search takes ([\d.]+) of", capsys.readouterr().out)
    assert [name for name, _ in found] == ["new:paged", "legacy"]
    assert all(0.1 < float(ratio) < 1.5 for _, ratio in found)


def test_what_takes_long_is_run_by_name_only(monkeypatch, capsys):
    run = []
    monkeypatch.setattr(claims, "CLAIMS", {name: lambda name=name: run.append(name) for name in claims.CLAIMS})
    claims.main([])
    assert set(claims.CLAIMS) - set(run) == {"same-search-full"}
    claims.main(["same-search-full"])
    assert run[-1] == "same-search-full"


def test_an_unknown_claim_is_refused_by_name():
    with pytest.raises(SystemExit, match="unknown: nonsense"):
        claims.main(["nonsense"])
