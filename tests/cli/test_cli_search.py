"""``kvcache search``: what it prints and writes, and what it refuses."""

import json

import pytest
from click.testing import CliRunner

from kvcache.cli import main

SMALL = ["--geometry", "cartpole", "--searches", "4", "--simulations", "5", "--env-num", "2"]


def run(*options, expected=0):
    result = CliRunner().invoke(main, ["search", *SMALL, *map(str, options)])
    assert result.exit_code == expected, result.output
    return result.output


def test_each_backend_has_a_column_and_finds_the_same(tmp_path):
    path = tmp_path / "search.json"
    names = ["legacy", "new:private", "new:slab", "new:paged", "new:auto"]
    output = run(*(option for name in names for option in ("--backend", name)), "--json", path)
    assert all(name in output for name in names)
    numbers = json.loads(path.read_text())
    assert (numbers["format"], numbers["searches"], numbers["geometry"]["env_num"]) == ("kvcache-search", 4, 2)
    for each in numbers["backends"]:
        assert each["searches_with_the_same_actions"] == each["searches_with_the_same_visits"] == 4
        assert each["largest_difference_of_values"] == 0  # cartpole's positions are rotary
        assert (each["hits"], each["misses"]) == (4 * 5 * 2, 0)
        assert 0 < each["cache_share_median"] < 1
        assert each["search_ms_median"] > each["cache_ms_median"] > 0


def test_a_small_legacy_pool_finds_something_else_and_validation_says_why(tmp_path):
    path = tmp_path / "search.json"
    output = run("--recur-slots", 2, "--validate", "--json", path, "--simulations", 12)
    assert "legacy's stale hits" in output
    legacy, new = json.loads(path.read_text())["backends"]
    assert legacy["validation"]["stale_hits"] > 0
    assert new["misses"] > legacy["misses"] == 0
    assert new["searches_with_the_same_visits"] < 4


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
        (["--backend", "legacy", "--backend", "legacy"], "a backend is named twice"),
        (["--backend", "disk"], "'disk' is not one of"),
        (["--env-num", "0"], "0 is not in the range"),
        (["--positions", "none"], "'none' is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_without_a_traceback(options, message):
    assert message in run(*options, expected=2)
