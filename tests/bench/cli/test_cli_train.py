"""``kvbench train``: what it prints and writes, and what it refuses. No run of LightZero is behind these numbers."""

import json

import pytest
from click.testing import CliRunner
from training_files import backend, results

from kvbench.cli import main
from kvbench.results.training import Validation
from kvbench.training import run
from kvbench.training.backends import TRAINED, cache_settings
from kvcache.integrations.lightzero import SETTINGS

VALIDATION = Validation(
    lookups=9, compared=7, largest_difference=0.0, stale_hits=2, only_primary=1, only_shadow=0
)  # fmt: skip


@pytest.fixture
def trains(monkeypatch):
    """The command, with training replaced; the settings and folders that it was called with."""
    called = []

    def invoke(found, *options, expected=0):
        def train(settings, folder, progress):
            called.append((settings, folder))
            progress(settings.backends[0], {"env_steps": 7, "learn_steps": 2})
            assert folder.parent.is_dir()
            folder.mkdir(exist_ok=True)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(run, "train", train)
        result = CliRunner().invoke(main, ["train", "lightzero", "--env", "cartpole", *map(str, options)])
        assert result.exit_code == expected, result.output
        return result.output, called

    return invoke


def test_the_table_and_the_verdict(trains):
    output, called = trains(results(backend("legacy"), backend("new", searches_per_second=9.25)))
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "CartPole-v0, LightZero 0.2.0, seed 0" in output
    assert "searches a second 4.50 9.25" in lines
    assert "cache, % of a search 25.0 25.0" in lines
    assert "hits, % 90.00 90.00" in lines
    assert (
        "new: identical to legacy in every number of 40 searches and 25 learning steps "
        "(75 % of predicted latents have keys of their own)." in output
    )
    settings, folder = called[0]
    assert settings.backends == ("legacy", "new")
    assert (settings.env_steps, settings.seed, settings.threads, settings.validates) == (2000, 0, 1, False)
    assert not folder.exists()


def test_the_new_caches_evict_by_the_strategy_that_is_asked_for(trains):
    found = results(backend("legacy"), backend("new"))
    _, called = trains(found, "--eviction", "s3-fifo", "--set", "seed=3")
    trains(found)
    name = "policy.model.world_model_cfg.eviction_strategy"
    assert [settings.settings for settings, _ in called] == [{"seed": 3, name: "s3-fifo"}, {}]
    assert "eviction_strategy" in SETTINGS


def test_a_difference_in_words(trains):
    where = "search 3, environment 0: action is 0, and 1 in the first"
    output, _ = trains(
        results(backend("legacy"), backend("new", first_difference=where, largest_difference=1.5e-7)),
    )
    assert f"new: the first difference to legacy is at {where}. Searched values differ by 1.5e-07 at most" in output


def test_few_distinct_keys_prove_little(trains):
    output, _ = trains(results(backend("legacy", distinct_keys=0.03), backend("new", distinct_keys=0.03)))
    assert "(3 % of predicted latents have keys of their own; below 50 % this proves little)" in output


def test_a_recurrent_miss_of_legacy(trains):
    ended = "TypeError at a recurrent miss (list indices must be integers or slices, not NoneType)"
    output, _ = trains(results(backend("legacy", ended_with=ended, env_steps=12), backend("new")))
    assert f"legacy ended after 12 environment steps: {ended}." in output


def test_nothing_is_called_identical_where_nothing_was_compared(trains):
    output, _ = trains(results(backend("legacy", ended_with="TypeError", searches=0), backend("new")))
    assert "new: there is nothing to compare, as legacy ended before its first search was collected." in output
    assert "identical" not in output


def test_what_a_validation_found(trains):
    output, called = trains(results(backend("legacy"), backend("new", validation=VALIDATION)), "--validate")
    assert called[0][0].validates
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "retrievals compared with legacy, all the same - 7" in lines
    assert "stale hits of legacy beside it - 2" in lines
    assert "beside it" not in trains(results(backend("legacy")))[0]


def test_files_and_a_page_in_a_folder(trains, tmp_path):
    output, called = trains(
        results(backend("legacy"), backend("new")), "--output", tmp_path / "runs", "--json", tmp_path / "mine.json"
    )
    assert called[0][1] == tmp_path / "runs"
    assert f"{tmp_path / 'runs' / 'index.html'}: curves of all runs" in output
    assert json.loads((tmp_path / "mine.json").read_text()) == json.loads((tmp_path / "runs/training.json").read_text())
    assert "identical to legacy" in (tmp_path / "runs" / "index.html").read_text()


def test_a_failed_run_is_one_error_and_leaves_no_folder(trains):
    output, called = trains(run.TrainingError("the run with new ended with status 1: why"), expected=1)
    assert "Error: the run with new ended with status 1: why" in output
    assert "Traceback" not in output
    assert not called[0][1].exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--output", "{}"], "exists: choose another name"),
        (["--backend", "new", "--backend", "new"], "a --backend is given twice"),
        (["--backend", "mine"], "is not one of"),
        (["--config", "mine.py"], "give either --env or --config"),
        (["--env-steps", "0"], "1<=x<=1000000000"),
    ],
)
def test_what_it_refuses(trains, tmp_path, options, fault):
    output, called = trains(None, *(each.replace("{}", str(tmp_path)) for each in options), expected=2)
    assert fault in " ".join(output.replace("│", " ").split())
    assert not called


@pytest.mark.parametrize("name", TRAINED)
def test_a_backends_name_as_settings(name):
    settings = cache_settings(name, validates=True)
    assert settings.keys() <= SETTINGS.keys()
    if name == "legacy":
        assert settings == {}
    else:
        assert settings["cache_exact_layout"] == name.endswith("-exact")
        assert settings["cache_resident_batch"] == ("resident" in name)
        assert settings["cache_storage"] == (name.partition(":")[2].partition("-")[0] or "paged")
        assert settings["cache_validation_mode"]
