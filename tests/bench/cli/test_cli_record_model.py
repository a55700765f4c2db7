"""``kvbench record synthetic-model``."""

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.trace.reader import TraceReader
from kvcache.world_model.play import play

SMALL = ["record", "synthetic-model", "--geometry", "cartpole", "--searches", "2", "--simulations", "3"]


def record(*options):
    return CliRunner().invoke(main, [*SMALL, *map(str, options)])


def test_the_same_seed_is_the_same_trace_and_says_what_it_is(tmp_path):
    events = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        result = record("--output", tmp_path / name, "--seed", seed, "--backend", "new")
        assert result.exit_code == 0, result.output
        assert "2 searches of kvcache's own world model, cartpole" in result.output
        reader = TraceReader(tmp_path / name)
        assert (reader.header.backend, reader.header.source["seed"]) == ("new", seed)
        assert reader.header.geometry.num_simulations == 3
        events.append(list(reader.events()))
    assert events[0] == events[1] != events[2]


def test_environments_and_positions_are_the_geometrys_own_unless_they_are_given(tmp_path):
    found = {}
    for name, options in (("own", []), ("given", ["--env-num", 3, "--positions", "absolute"])):
        result = record("--output", tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        geometry = TraceReader(tmp_path / name).header.geometry
        found[name] = geometry.env_num, geometry.positions, geometry.num_simulations
    assert found == {"own": (8, "rotary", 3), "given": (3, "absolute", 3)}


def test_several_leaves_are_recorded_replayed_and_reported(tmp_path):
    trace = str(tmp_path / "trace.parquet")
    assert record("--output", trace, "--leaves", 2).exit_code == 0
    header = TraceReader(trace).header
    assert (header.schema_version, header.source["leaves"], header.geometry.num_simulations) == ("1.3", 2, 3)
    replayed = str(tmp_path / "replay.json")
    capacities = ["--capacity", "default", "--capacity", "recur=5"]
    for command in (
        ["trace", "check", trace],
        ["replay", trace, "--repetitions", "1", "--forward", *capacities, "--json", replayed],
        ["report", "--trace", trace, "--replay", replayed, "--output", str(tmp_path / "html")],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    for replay in json.loads(Path(replayed).read_text())["replays"]:
        for backend in replay["backends"]:
            # Three simulations of 8 environments, twice; those of the second search have roots that were looked up.
            counts = {row["simulation"]: sum(row.values()) - row["simulation"] for row in simulations(backend)}
            assert counts == {-1: 8, 0: 16, 1: 16, 2: 16}


def simulations(backend):
    return backend["timeline"]["by_simulation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--env-num", 0], "0 is not in the range"),
        (["--positions", "none"], "'none' is not one of"),
        (["--seed", 2**63], f"{2**63} is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, message):
    result = record("--output", tmp_path / "trace", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_cut_off_says_how_to_get_what_was_recorded(tmp_path, monkeypatch):
    def interrupted(*args):
        yield from itertools.islice(play(*args), 1)
        raise KeyboardInterrupt

    path = tmp_path / "trace"
    monkeypatch.setattr("kvbench.record.world_model.play", interrupted)
    result = record("--output", path)
    assert result.exit_code == 130
    assert f"cut off: 'kvbench trace recover {path}' makes a trace of what was recorded" in result.output
    assert not path.exists()
    recovered = CliRunner().invoke(main, ["trace", "recover", str(path)])
    assert recovered.exit_code == 0, recovered.output
    assert {event["search"] for event in TraceReader(path).events()} == {0}


def test_an_interruption_before_anything_was_recorded_gives_no_hint(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("kvbench.cli.record.record_model", interrupted)
    result = record("--output", tmp_path / "trace")
    assert result.exit_code == 130
    assert "recover" not in result.output


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "trace.parquet"
    path.write_text("mine")
    result = record("--output", path)
    assert result.exit_code == 1
    assert "exists: choose another name" in result.output
    assert path.read_text() == "mine"
