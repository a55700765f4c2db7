"""Sizes that a user asks for, and no machine has, are refused before anything is allocated."""

import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.record import needs
from kvcache import GEOMETRIES

HUGE = {
    "search, environments": ["search", "--geometry", "pong", "--env-num", "1000000"],
    "search, simulations": ["search", "--geometry", "wide", "--simulations", "1000000"],
    "search, slots": ["search", "--geometry", "wide", "--recur-slots", "1000000", "--searches", "1"],
    "search, searches": ["search", "--geometry", "cartpole", "--searches", "1000000000"],
    "recording, environments": ["record", "synthetic-model", "--geometry", "pong", "--env-num", "1000000"],
    "recording, simulations": ["record", "synthetic-model", "--geometry", "pong", "--simulations", "1000000"],
    "recording, searches": ["record", "synthetic-model", "--geometry", "pong", "--searches", "1000000000"],
    "trees, searches": ["trace", "synthesize", "--geometry", "pong", "--searches", "1000000000"],
}


@pytest.mark.parametrize("arguments", HUGE.values(), ids=HUGE)
def test_they_are_refused_in_one_line(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    output = {"record": ["--output", "trace.parquet"], "trace": ["trace.parquet"]}.get(arguments[0], [])
    result = CliRunner().invoke(main, [*arguments, *output])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: this ")
    assert " needs about " in line
    assert " are free: give fewer --" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cache", ["legacy", "new"])
def test_leaves_need_a_larger_batch_up_to_all_simulations(monkeypatch, cache):
    needed = []
    monkeypatch.setattr(needs, "require_memory", lambda name, needs, advice: needed.append(needs))
    for leaves in (1, 8, 50, 51):
        needs.require_for_searches("this search", GEOMETRIES["wide"], [cache], 1, leaves=leaves)
    one, eight, all_of_them, more = needed
    assert one + 7 * 8 * GEOMETRIES["wide"].entry_bytes() <= eight < all_of_them == more
