"""Runs one after the other, each in a process of its own: here a stand-in for the one that trains with LightZero."""

import logging
import math
from pathlib import Path

import pytest
import training_files
from training_files import NOTES

from kvbench.errors import KvbenchError
from kvbench.record.lightzero_config import ConfigError
from kvbench.results.decode import read_json, write_json
from kvbench.results.training import MADE_BY, TrainingResults, Validation
from kvbench.training import run
from kvbench.training.run import TrainingError, TrainingSettings, train
from kvbench.training.table import verdicts

CONFIG = """
import logging
logging.basicConfig(level=logging.DEBUG, force=True)
print("a library greets")
main_config = {"env": {"env_name": "Maze-v0"}, "policy": {}}
create_config = {"policy": {"type": "unizero"}}
"""
FINITE = NOTES[:-1]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Train by a plan for each backend."""
    monkeypatch.setattr(run, "require_lightzero", lambda: None)
    monkeypatch.setattr(run, "_PACKAGES", ("torch", "numpy"))
    monkeypatch.setenv("PYTHONPATH", str(Path(training_files.__file__).parent))
    (tmp_path / "maze.py").write_text(CONFIG)

    def train_by(plan, progress=lambda name, counts: None):
        settings = TrainingSettings(str(tmp_path / "maze.py"), {"plan": plan}, tuple(plan), 3, seed=5, threads=1)
        return train(settings, tmp_path / "runs", progress, worker="training_files")

    return train_by


def test_the_numbers_of_a_run(trained, tmp_path):
    told = []
    results = trained({"legacy": {"notes": FINITE}, "new": {"notes": FINITE}}, lambda *each: told.append(each))
    assert told == [(name, {"env_steps": 2, "learn_steps": 0}) for name in ("legacy", "new")]
    assert (results.environment, results.library, results.seed) == ("Maze-v0", "LightZero 0.2.0", 5)
    assert set(results.packages) == {"torch", "numpy"}
    legacy, new = results.backends
    assert (new.searches_per_second, new.cache_share, new.cache_ms_per_search) == (0.5, 0.25, 500.0)
    assert (new.hit_rate, new.stale_hit_rate, new.miss_rate) == (0.85, 0.05, 0.1)
    assert new.returns == [(2, 7.0)]
    assert new.losses == [(0, 2.5), (1, 1.5)]
    assert new.learn_steps == 2
    assert legacy.first_difference is new.first_difference is None
    write_json(tmp_path / "training.json", results)
    assert read_json(tmp_path / "training.json", TrainingResults, MADE_BY) == results


def test_each_run_has_a_folder_and_a_log(trained, tmp_path):
    trained({"new:paged-exact": {}})
    folder = tmp_path / "runs" / "new-paged-exact"
    assert sorted(path.name for path in folder.iterdir()) == ["numbers.jsonl", "order.json", "run.log", "summary.json"]
    assert (folder / "run.log").read_text() == "a library complains\n"


def test_a_difference_is_in_the_results(trained):
    other = [{**each, "searched value": 0.625} if each["kind"] == "search" else each for each in FINITE]
    _, new = trained({"legacy": {"notes": FINITE}, "new": {"notes": other}}).backends
    assert new.first_difference.startswith("search 1, environment 0: searched value is 0.625")
    assert new.largest_difference == 0.125


def test_a_recurrent_miss_ends_legacy_and_the_others_are_compared_up_to_there(trained):
    ended = {"ended_with": "TypeError at a recurrent miss (None)", "env_steps": 1}
    results = trained({"legacy": {"notes": FINITE[:1], "summary": ended}, "new": {}})
    legacy, new = results.backends
    assert legacy.ended_with == "TypeError at a recurrent miss (None)"
    assert new.first_difference is None
    sentences = verdicts(results)
    assert sentences[0] == "legacy ended after 1 environment steps: TypeError at a recurrent miss (None)."
    assert sentences[1].startswith("new: identical to legacy in every number of 2 searches")


def test_a_run_that_ended_at_once(trained):
    nothing = {"searches": 0, "search_seconds": 0.0, "lookups": 0, "found": 0, "stale_hits": 0}
    (only,) = trained({"legacy": {"notes": [], "summary": nothing}}).backends
    assert (only.searches_per_second, only.hit_rate, only.returns) == (0.0, 0.0, [])


def test_the_results_of_a_validation(trained):
    counts = {"lookups": 9, "compared": 7, "largest_difference": 0.0, "stale_hits": 2}
    counts |= {"only_primary": 0, "only_shadow": 0}
    (new,) = trained({"new": {"summary": {"validation": counts}}}).backends
    assert new.validation == Validation(**counts)


def test_a_worker_that_fails_is_named_with_its_last_line_and_log(trained, tmp_path):
    with pytest.raises(TrainingError) as caught:
        trained({"legacy": {}, "new": {"fails": "no room"}})
    first, *_ = str(caught.value).splitlines()
    assert first == "the run with new ended with status 1: MemoryError: no room"
    assert "collecting" in str(caught.value)
    assert isinstance(caught.value, KvbenchError)
    assert (tmp_path / "runs" / "legacy" / "summary.json").exists()


def test_what_ends_the_command_ends_the_worker(trained):
    def interrupted(name, counts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained({"new": {"waits": True}}, interrupted)  # it would sleep for a minute


def test_what_a_configuration_prints_and_logs_stays_out_of_the_way(trained, capsys):
    level = logging.root.level
    trained({"legacy": {}})
    assert capsys.readouterr() == ("", "")
    assert logging.root.level == level


def test_without_lightzero(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="is not installed"):
        train(TrainingSettings("cartpole", {}, ("legacy",), 1, 0, 1), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_long_curves_are_thinned():
    points = [(step, math.sqrt(step)) for step in range(2500)]
    thinned = run._thinned(points)
    assert len(thinned) == 834
    assert thinned[0] == points[0]
    assert run._thinned(points[:999]) == points[:999]
