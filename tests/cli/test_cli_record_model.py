"""``kvcache record synthetic-model``."""

from click.testing import CliRunner

from kvcache.cli import main
from kvcache.trace.reader import TraceReader

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


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "trace.parquet"
    path.write_text("mine")
    result = record("--output", path)
    assert result.exit_code == 1
    assert "exists: choose another name" in result.output
    assert path.read_text() == "mine"
