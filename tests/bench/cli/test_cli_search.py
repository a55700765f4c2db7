"""``kvbench search``: what it prints and writes, and what it refuses."""

import json

import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.results.decode import read_json
from kvbench.results.search import SearchResults
from kvcache import EvictionStrategy
from kvcache.eviction import make_policy

SMALL = ["--geometry", "cartpole", "--searches", "4", "--simulations", "5", "--env-num", "2"]


def run(*options, expected=0):
    result = CliRunner().invoke(main, ["search", *SMALL, *map(str, options)])
    assert result.exit_code == expected, result.output
    return result.output


def test_each_backend_has_a_column_and_finds_the_same(tmp_path):
    path = tmp_path / "search.json"
    names = ["legacy", "new:reference", "new:private", "new:slab", "new:paged", "new:auto"]
    output = run(*(option for name in names for option in ("--backend", name)), "--json", path)
    assert all(name in output for name in names)
    assert "of it cache work, ms, median" in output
    numbers = json.loads(path.read_text())
    assert (numbers["format"], numbers["searches"], numbers["geometry"]["env_num"]) == ("kvcache-search", 4, 2)
    assert read_json(path, SearchResults, "a test").schema_version == 1
    for each in numbers["backends"]:
        assert each["searches_with_the_same_actions"] == each["searches_with_the_same_visits"] == 4
        assert each["largest_difference_of_values"] == 0  # cartpole's positions are rotary
        assert (each["hits"], each["misses"]) == (4 * 5 * 2, 0)
        assert 0 < each["cache_share_median"] < 1
        parts = [each[f"{part}_ms_median"] for part in ("forward", "cache", "tree", "rest")]
        assert min(parts) > 0
        assert max(parts) == each["forward_ms_median"] < each["search_ms_median"]
    assert all(f"of it {what}, ms, median" in output for what in ("inferences without the cache", "trees"))


def test_a_small_legacy_pool_finds_something_else_and_validation_says_why(tmp_path):
    path = tmp_path / "search.json"
    output = run("--recur-slots", 2, "--validate", "--json", path, "--simulations", 12)
    assert "legacy's stale hits" in output
    assert "of it cache work of both caches and comparing them, ms, median" in output
    legacy, new = json.loads(path.read_text())["backends"]
    for each in (legacy, new):
        count = each["validation"]["stale_hits"]
        assert count > 5
        assert f"{each['name']}: {count} stale hits of legacy; the first 5 were logged" in output
    assert new["misses"] > legacy["misses"] == 0
    assert new["searches_with_the_same_visits"] < 4


@pytest.mark.parametrize("eviction", [each.value for each in EvictionStrategy])
def test_small_pools_evict_by_the_strategy_that_is_asked_for(tmp_path, monkeypatch, eviction):
    made = []

    def make(strategy, size):
        made.append(strategy)
        return make_policy(strategy, size)

    monkeypatch.setattr("kvcache.slots.make_policy", make)
    path = tmp_path / "search.json"
    run("--recur-slots", 2, "--simulations", 12, "--eviction", eviction, "--backend", "new", "--json", path)
    numbers = json.loads(path.read_text())
    assert numbers["eviction"] == eviction
    assert numbers["backends"][0]["misses"] > 0
    assert {each.value for each in made} == {eviction}


def test_several_leaves_are_another_search_in_fewer_batches_and_all_caches_find_the_same(tmp_path):
    for leaves in (1, 3):
        run("--leaves", leaves, "--json", tmp_path / "search.json", "--backend", "legacy", "--backend", "new")
        numbers = json.loads((tmp_path / "search.json").read_text())
        assert numbers["leaves"] == leaves
        legacy, new = numbers["backends"]
        assert new["searches_with_the_same_visits"] == 4
        assert (new["hits"], new["misses"]) == (legacy["hits"], legacy["misses"]) == (4 * 5 * 2, 0)
    assert "0 is not in the range" in run("--leaves", 0, expected=2)


def test_a_seed_is_a_result(tmp_path):
    def found(seed, name):
        run("--seed", seed, "--json", tmp_path / name, "--positions", "absolute")
        return [
            {key: value for key, value in each.items() if "ms" not in key and "share" not in key and "times" not in key}
            for each in json.loads((tmp_path / name).read_text())["backends"]
        ]

    assert found(1, "a") == found(1, "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "legacy", "--backend", "legacy"], "a --backend is given twice"),
        (["--backend", "disk"], "'disk' is not one of"),
        (["--env-num", "0"], "0 is not in the range"),
        (["--positions", "none"], "'none' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_traceback(options, message):
    assert message in run(*options, expected=2)
