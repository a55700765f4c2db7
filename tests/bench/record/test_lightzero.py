"""The LightZero recorder: on a fake world model everywhere, on LightZero itself where it is installed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xxhash
from fake_lightzero import FakeRun, FakeWorldModel, draw

from kvbench.record import lightzero, lightzero_config, lightzero_run
from kvbench.record.lightzero import LightZeroRecorder, RecordingError, geometry_of
from kvbench.record.lightzero_config import ConfigError, UniZeroConfig, load_config
from kvbench.record.lightzero_log import quietly, tail
from kvbench.record.lightzero_pinning import pin
from kvbench.record.lightzero_run import RunSettings, record_run
from kvbench.trace.journal import journal_path
from kvbench.trace.keys import FEW_DISTINCT_KEYS
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import NO_ENV, ROOT_SIMULATION, TraceHeader
from kvbench.trace.writer import TraceWriter, recover_trace
from kvcache.hashing import hash_state

SIMULATIONS = 4


class Recording:
    """A fake run and the trace of it."""

    def __init__(self, path: Path, **model) -> None:
        self.path = path
        self.model = FakeWorldModel(num_simulations=SIMULATIONS, **model)
        self.run = FakeRun(self.model, SIMULATIONS)
        geometry = geometry_of(self.model, "fake", SIMULATIONS)
        self.writer = TraceWriter(path, TraceHeader.create(geometry, {}, synthetic=False, backend="legacy-0.2.0"))

    def recorder(self, **options) -> LightZeroRecorder:
        return LightZeroRecorder(self.model, self.writer, tree=self.run.tree, **options)

    def events(self) -> list[dict]:
        self.writer.close()
        return list(TraceReader(self.path).events())  # checked: order within batches, nodes, parents, sizes


@pytest.fixture
def recording(tmp_path):
    return Recording(tmp_path / "trace.parquet")


def of(events, kind, scope=None):
    return [event for event in events if event["kind"] == kind and scope in (None, event["scope"])]


def counts(events):
    return Counter((event["kind"], event["scope"]) for event in events)


def test_a_run_is_recorded_in_full(recording):
    with recording.recorder() as recorder:
        recording.run.search(3)
    assert recorder.searches == 3
    events = recording.events()
    rows = recording.model.env_num
    assert counts(events) == {
        ("lookup", "root"): 2 * rows,
        ("assemble", "root"): 2 * rows,
        ("store", "init"): 3 * rows,
        ("clear", "recur"): 3,
        ("lookup", "node"): 3 * SIMULATIONS * rows,
        ("assemble", "node"): 3 * SIMULATIONS * rows,
        ("store", "recur"): 3 * SIMULATIONS * rows,
    }
    batches = list(dict.fromkeys((each["batch"], each["search"], each["simulation"]) for each in events))
    assert batches == [
        (search * (SIMULATIONS + 1) + simulation + 1, search, simulation)
        for search in range(3)
        for simulation in range(ROOT_SIMULATION, SIMULATIONS)
    ]
    assert all(event["hit"] for event in of(events, "lookup"))


def test_a_first_step_extends_nothing_and_every_other_extends_what_it_looked_up(recording):
    with recording.recorder():
        recording.run.search(2)
        recording.run.restart()
        recording.run.search(2)
    events = recording.events()
    stores = of(events, "store", "init")
    assert [(each["tokens"], each["parent"] is None) for each in stores[:: recording.model.env_num]] == [
        (1, True), (2, False), (1, True), (2, False)
    ]  # fmt: skip
    assert {each["search"] for each in of(events, "lookup", "root")} == {1, 3}
    parents = {(each["batch"], each["env"]): each["key"] for each in of(events, "lookup")}
    for store in of(events, "store"):
        assert store["parent"] == parents.get((store["batch"], store["env"]))
    assert {store["tokens"] for store in of(events, "store", "recur")} == {2}


def test_keys_are_the_hashes_of_the_latents(recording):
    with recording.recorder():
        recording.run.search()
    events = recording.events()
    stored = [[each["key"] for each in events if each["kind"] == "store" and each["simulation"] == simulation]
              for simulation in range(ROOT_SIMULATION, SIMULATIONS)]  # fmt: skip
    assert stored == [[hash_state(latent) for latent in latents] for latents in recording.run.results[0]]


def test_the_hex_key_of_0_2_0_is_the_key_of_a_trace():
    latent = draw(np.random.default_rng(0), 1)[0]
    assert int(xxhash.xxh64(latent).hexdigest(), 16) == hash_state(latent)


@pytest.mark.parametrize("constant", [False, True])
def test_a_lookup_names_the_store_of_the_node_that_the_tree_meant(recording, constant):
    recording.model.constant_latents = constant  # all nodes share a key: only the tree can tell them apart
    with recording.recorder():
        recording.run.search(2)
    events = recording.events()
    for number, traversed in enumerate(recording.run.traversed):
        search, simulation = divmod(number, SIMULATIONS)
        lookups = [each for each in of(events, "lookup", "node")
                   if (each["search"], each["simulation"]) == (search, simulation)]  # fmt: skip
        meant = [events[each["node"]] for each in lookups]
        assert [(each["search"], each["simulation"] + 1, each["env"]) for each in meant] == [
            (search, step, row) for step, row in traversed
        ]
        assert [each["depth"] for each in lookups] == [step + 1 for step, _ in traversed]


def test_a_root_lookup_names_the_last_init_store_of_its_environment(recording):
    with recording.recorder():
        recording.run.search(3)
    events = recording.events()
    for lookup in of(events, "lookup", "root"):
        store = events[lookup["node"]]
        assert (store["kind"], store["scope"], store["env"]) == ("store", "init", lookup["env"])
        assert store["search"] == lookup["search"] - 1


def test_after_a_reset_the_root_misses_and_generates(recording):
    with recording.recorder():
        recording.run.search(2)
        recording.model.clear_caches()
        recording.run.search()
    events = recording.events()
    lookups = [each for each in of(events, "lookup", "root") if each["search"] == 2]
    assert [each["hit"] for each in lookups] == [False] * recording.model.env_num
    assert all(each["node"] is not None for each in lookups)  # it meant what was stored, and forgotten
    assert [each["key"] for each in of(events, "generate")] == recording.model.generated
    assert [each["size"] for each in of(events, "assemble", "root") if each["search"] == 2] == [1] * 3


def test_a_key_that_was_never_stored_means_no_node(recording):
    recording.run.last, recording.run.action = draw(np.random.default_rng(9), 3), [0] * 3
    with recording.recorder():
        recording.run.search()
    lookups = of(recording.events(), "lookup", "root")
    assert [(each["hit"], each["node"]) for each in lookups] == [(False, None)] * 3


def test_the_clears_of_a_reset_are_one_event(recording):
    with recording.recorder():
        recording.run.search()
        for _ in range(recording.model.env_num):  # LightZero resets once for every environment
            recording.model.clear_caches()
        recording.run.search()
        for names in recording.model.past_kv_cache_init_infer_envs:
            names.clear()
        recording.run.search()
        recording.model.past_kv_cache_recurrent_infer.clear()
    events = recording.events()
    clears = of(events, "clear")
    assert [each["scope"] for each in clears] == ["recur", "all", "recur", "init", "recur", "recur"]
    assert {each["env"] for each in clears} == {NO_ENV}
    alone = [each for each in clears if sum(other["batch"] == each["batch"] for other in events) == 1]
    assert [each["scope"] for each in alone] == ["all", "init", "recur"]


def test_the_end_of_one_environments_episode_is_an_event_of_its_own(recording):
    with recording.recorder() as recorder:
        recording.run.search()
        for env in (2, 1):
            recording.model.past_kv_cache_init_infer_envs[env].clear()
        recording.model.past_kv_cache_recurrent_infer.clear()
        recording.run.search(2)
    assert recorder.searches == 3
    events = recording.events()
    clears = [(each["scope"], each["env"]) for each in of(events, "clear")]
    assert clears == [("recur", NO_ENV), ("init", 1), ("init", 2), ("recur", NO_ENV), *2 * [("recur", NO_ENV)]]
    roots = [each for each in of(events, "lookup", "root") if each["search"] == 1]
    assert [each["hit"] for each in roots] == [True, False, False]


def test_of_an_inference_for_targets_only_the_clear_is_recorded(recording):
    random = np.random.default_rng(3)
    with recording.recorder() as recorder:
        recording.run.search()
        recording.model.forward_initial_inference(
            {"obs": draw(random, 3), "action": np.zeros((1, 3)), "current_obs": None}
        )
        too_many = draw(random, 7)
        recording.model.forward_initial_inference({"obs": too_many, "action": [0] * 7, "current_obs": too_many})
        recording.run.search()
    assert recorder.searches == 2
    events = recording.events()
    number = max(each["batch"] for each in events if each["search"] == 0)
    assert [(each["kind"], each["scope"]) for each in events if each["batch"] in (number - 1, number)] == [
        ("clear", "recur")
    ] * 2


def test_reanalyzing_is_not_recorded(recording):
    with recording.recorder():
        recording.run.search()
        recording.model.reanalyze_phase = True
        latents = draw(np.random.default_rng(3), 3)
        recording.model.forward_recurrent_inference([(latents, [0] * 3)])
        recording.model.reanalyze_phase = False
        recording.run.search()
    assert len(of(recording.events(), "store", "recur")) == 2 * SIMULATIONS * 3


def test_without_room_for_a_past_nothing_is_stored(tmp_path):
    recording = Recording(tmp_path / "trace.parquet", context_length=2)
    with pytest.raises(TypeError), recording.recorder():  # LightZero 0.2.0 fails on its first recurrent miss
        recording.run.search()
    events = recording.events()
    assert not of(events, "store")
    assert [(each["scope"], each["hit"]) for each in of(events, "lookup")] == [("node", False)]


def test_a_trace_begins_when_the_caches_are_empty(recording):
    recording.run.search(2)
    with recording.recorder() as recorder:
        recording.run.search(2)
        assert recorder.searches == 0
        recording.model.clear_caches()
        recording.run.restart()
        recording.run.search(2)
    assert recorder.searches == 2
    events = recording.events()
    assert (events[0]["kind"], events[0]["search"], events[0]["parent"]) == ("store", 0, None)
    assert all(each["hit"] for each in of(events, "lookup"))


def test_the_limit_ends_the_recording_between_two_searches(recording):
    seen = []
    with recording.recorder(searches=2, on_search=seen.append) as recorder:
        recording.run.search(2)
        assert not recorder.finished
        recording.run.search(2)
        assert recorder.finished
    assert (recorder.searches, seen) == (2, [0, 1, 2, 2])
    events = recording.events()
    assert events[-1]["search"] == 1
    assert events[-1]["simulation"] == SIMULATIONS - 1
    assert len(recording.run.results) == 4


def test_the_limit_can_end_the_run(recording):
    def stop(recorded):
        if recorded == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), recording.recorder(searches=2, on_search=stop):
        recording.run.search(9)
    assert len(recording.run.results) == 2
    assert len(of(recording.events(), "store", "init")) == 2 * 3


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(recording, fails):
    model, tree = recording.model, recording.run.tree
    recording.run.search()
    before = dict(vars(model))
    traverse = tree.batch_traverse
    dicts = [*model.past_kv_cache_init_infer_envs, model.past_kv_cache_recurrent_infer]
    try:
        with recording.recorder():
            recording.run.search()
            inside = [
                dict(each) for each in (*model.past_kv_cache_init_infer_envs, model.past_kv_cache_recurrent_infer)
            ]
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert set(vars(model)) == set(before)
    assert tree.batch_traverse is traverse
    now = [*model.past_kv_cache_init_infer_envs, model.past_kv_cache_recurrent_infer]
    assert all(each is original for each, original in zip(now, dicts, strict=True))
    assert [dict(each) for each in now] == inside
    assert model.past_kv_cache_init_infer_envs is before["past_kv_cache_init_infer_envs"]
    recording.writer.abandon()


def test_a_run_that_raises_within_an_inference_keeps_what_it_asked(recording):
    def fail(*args, **kwargs):
        raise ZeroDivisionError

    recording.model._take = fail
    with pytest.raises(ZeroDivisionError), recording.recorder():
        recording.run.search()
    events = recording.events()
    assert counts(events) == {("store", "init"): 3, ("clear", "recur"): 1, ("lookup", "node"): 1}


def test_an_observed_run_has_the_results_of_an_unobserved_one(recording):
    with recording.recorder():
        recording.run.search(4)
    alone = FakeRun(FakeWorldModel(num_simulations=SIMULATIONS), SIMULATIONS)
    alone.search(4)
    assert np.array_equal(alone.results, recording.run.results)
    assert alone.model.past_kv_cache_init_infer_envs == recording.model.past_kv_cache_init_infer_envs
    recording.writer.abandon()


def test_a_simulation_whose_traversal_was_not_seen_ends_the_recording(recording):
    with pytest.raises(RecordingError, match="without batch_traverse"), recording.recorder():
        recording.run.search()
        recording.model.forward_recurrent_inference([(recording.run.last, [0] * 3)])
    assert len(of(recording.events(), "lookup", "node")) == SIMULATIONS * 3


def test_a_model_with_the_new_cache_is_refused(tmp_path):
    model = FakeWorldModel()
    model.past_kv_cache_recurrent_infer = SimpleNamespace(clear=lambda: None)  # the drop-in's stand-in
    with pytest.raises(RecordingError, match="use_new_cache_manager=False for the recording"):
        LightZeroRecorder(model, None)


def test_what_cannot_be_recorded_is_refused(recording):
    with pytest.raises(RecordingError, match=r"object is no world model of LightZero 0\.2\.0: it lacks forward_"):
        LightZeroRecorder(object(), recording.writer)
    with pytest.raises(ValueError, match="searches must be positive, got 0"):
        recording.recorder(searches=0)
    with recording.recorder(), pytest.raises(RecordingError, match="being observed by another recorder"):
        recording.recorder().__enter__()
    recording.writer.abandon()


def python(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a script that finds this file and the package, in a process of its own."""
    folders = [str(Path(__file__).parent), str(Path(lightzero.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_recording_can_be_recovered(tmp_path):
    path = tmp_path / "trace.parquet"
    script = f"""
        import os, signal
        from test_lightzero import *
        recording = Recording(Path({str(path)!r}))
        def kill(recorded):
            if recorded == 5:
                os.kill(os.getpid(), signal.SIGKILL)
        with recording.recorder(on_search=kill):
            recording.run.search(9)
        """
    ended = python(script, folder=tmp_path)
    assert ended.returncode == -signal.SIGKILL
    assert not path.exists()
    assert recover_trace(path) == TraceReader(path).check() > 0
    assert not journal_path(path).exists()
    assert {each["search"] for each in TraceReader(path).events()} == set(range(4))  # it costs the last search


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_prefix_that_ends_within_a_batch_is_a_trace(tmp_path, cut):
    recording = Recording(tmp_path / "trace.parquet")
    recording.writer._flush_rows = 1

    def add_row(row, _add=recording.writer.add_row):
        if recording.writer.rows == cut:
            raise ZeroDivisionError
        return _add(row)

    recording.writer.add_row = add_row
    with pytest.raises(ZeroDivisionError), recording.recorder():
        recording.run.search(9)
    recording.writer.abandon()
    assert recover_trace(recording.path) == TraceReader(recording.path).check() == cut


# record_run, as far as it goes without LightZero.


SETTINGS = RunSettings("cartpole", seed=0, train_steps=0, searches=1)


def test_without_lightzero_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lightzero_config.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed: run this in 'tox -e lightzero"):
        record_run(SETTINGS, tmp_path / "trace.parquet")


def test_another_version_of_lightzero_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lightzero_config.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(lightzero_config.importlib.metadata, "version", lambda name: "0.1.0")
    with pytest.raises(ConfigError, match=r"LightZero 0\.1\.0 is installed, and this is for 0\.2\.0"):
        record_run(SETTINGS, tmp_path / "trace.parquet")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"train_steps": -1}, "train_steps must be 0 or more, got -1"),
        ({"searches": 0}, "searches must be 1 or more, got 0"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
    ],
)
def test_bad_settings_are_named(changes, fault):
    with pytest.raises(ValueError, match=fault):
        replace(SETTINGS, **changes)


def test_a_trace_is_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(lightzero_run, "require_lightzero", lambda: None)
    path = tmp_path / "trace.parquet"
    for existing, advice in ((path, "choose another name"), (journal_path(path), "kvbench trace recover")):
        existing.touch()
        with pytest.raises(FileExistsError, match=advice):
            record_run(SETTINGS, path)
        existing.unlink()


def test_chatter_goes_to_the_log_and_progress_to_the_terminal(tmp_path, capsys):
    log = tmp_path / "run.log"
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with quietly(log, print) as (say, evaluations):
        print("chatter")
        logging.getLogger("lightzero.test").warning("more chatter")
        root.info(
            "Training iteration 7: Evaluation completed, stop condition: False, "
            "current reward: {'eval_episode_return': [9.0], 'eval_episode_return_mean': 9.25}"
        )
        root.info("Training iteration 8: Evaluation completed, {'eval_episode_return_mean': -120.5}")
        say("progress")
    assert evaluations == {7: 9.2, 8: -120.5}
    assert capsys.readouterr().out.splitlines() == [
        "train iteration 7: mean evaluation return 9.2", "train iteration 8: mean evaluation return -120.5", "progress",
    ]  # fmt: skip
    assert "chatter" in log.read_text()
    assert "more chatter" in tail(log)
    assert (root.handlers, root.level) == before


def test_a_failed_run_shows_the_end_of_its_log(tmp_path, monkeypatch):
    def fail(self, *args):
        print("the last words")
        raise ZeroDivisionError("division")

    monkeypatch.setattr(lightzero_run, "require_lightzero", lambda: None)
    monkeypatch.setattr(lightzero_run, "load_config", lambda config: UniZeroConfig("", "", {}, {}))
    monkeypatch.setattr(lightzero_run.LightZeroRun, "__init__", fail)
    before = Path.cwd()
    with pytest.raises(RecordingError, match=r"ZeroDivisionError: division\n(.|\n)*the last words"):
        record_run(SETTINGS, tmp_path / "trace.parquet")
    assert Path.cwd() == before


class StandInRun(lightzero_run.LightZeroRun):
    """Collects with the fake search; ``closed`` once its collector is."""

    world_model = policy_kwargs = None

    def __init__(self) -> None:
        self.world_model = FakeWorldModel(num_simulations=SIMULATIONS)
        self.fake, self.closed = FakeRun(self.world_model, SIMULATIONS), False

    def header(self) -> TraceHeader:
        return TraceHeader.create(geometry_of(self.world_model, "fake", SIMULATIONS), {}, synthetic=False)

    def collector(self) -> StandInRun:
        return self

    def collect(self, n_episode: int, policy_kwargs: None) -> None:
        self.fake.search(2)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stand_in(monkeypatch):
    run = StandInRun()
    tree = SimpleNamespace(tree_muzero=run.fake.tree)
    monkeypatch.setitem(sys.modules, "lzero.mcts.tree_search.mcts_ctree", tree)
    return run


def test_collecting_ends_with_the_last_search_to_be_recorded(tmp_path, stand_in):
    lines = []
    stand_in.record(tmp_path / "trace.parquet", 11, lines.append)
    reader = TraceReader(tmp_path / "trace.parquet")
    assert {each["search"] for each in reader.events()} == set(range(11))
    assert lines == [
        "recorded 0 of 11 searches", "recorded 10 of 11 searches", f"recorded 11 searches, {reader.rows} events",
    ]  # fmt: skip
    assert stand_in.closed


def test_collecting_that_fails_closes_the_collector_and_leaves_the_journal(tmp_path, stand_in, monkeypatch):
    def fail(**arguments):
        stand_in.fake.search(2)
        raise ZeroDivisionError

    monkeypatch.setattr(stand_in, "collect", fail)
    with pytest.raises(ZeroDivisionError):
        stand_in.record(tmp_path / "trace.parquet", 11, print)
    assert stand_in.closed
    assert recover_trace(tmp_path / "trace.parquet") == TraceReader(tmp_path / "trace.parquet").check() > 0


# LightZero itself.

# Enough training for keys of their own, in seconds.
TRAINED = RunSettings(
    "cartpole", seed=3, train_steps=100, searches=10, changes={"policy.update_per_collect": 60, "policy.batch_size": 32}
)
UNTRAINED = RunSettings("cartpole", seed=1, train_steps=0, searches=12)


def collect(run):
    """Actions, visit counts, values and rewards of eight episodes."""
    collector = run.collector()
    segments, _ = collector.collect(n_episode=8, policy_kwargs=run.policy_kwargs)
    collector.close()
    return [
        [np.asarray(values).tolist() for values in
         (each.action_segment, each.child_visit_segment, each.root_value_segment, each.reward_segment)]
        for each in segments
    ]  # fmt: skip


def lightzero_run_of(settings: RunSettings) -> lightzero_run.LightZeroRun:
    pin(settings.seed)
    run = lightzero_run.LightZeroRun(load_config(settings.config).changed(settings.changes), settings)
    run.train(settings.train_steps, print, {})
    return run


def train_and_collect(folder: Path, observed: bool) -> None:
    """Run in a process of its own; leaves what it collected, and the trace where it is observed."""
    os.chdir(folder)
    with quietly(Path("run.log"), lambda line: None):
        run = lightzero_run_of(TRAINED)
        if observed:
            with TraceWriter("trace.parquet", run.header()) as writer, LightZeroRecorder(run.world_model, writer):
                collected = collect(run)
        else:
            collected = collect(run)
    Path("collected.json").write_text(json.dumps(collected))


def test_lightzero_collects_the_same_observed_or_not_and_one_seed_makes_one_trace(tmp_path):
    pytest.importorskip("lzero")
    collected, traces = [], []
    for number, observed in enumerate((False, True, True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        ended = python(f"from test_lightzero import *; train_and_collect(Path({str(folder)!r}), {observed})", folder)
        assert ended.returncode == 0, ended.stderr
        collected.append((folder / "collected.json").read_text())
        if observed:
            traces.append(TraceReader(folder / "trace.parquet"))
    assert len(set(collected)) == 1
    assert len({reader.digest() for reader in traces}) == 1
    assert traces[0].check() > 0
    share = traces[0].header.source["distinct_keys"]
    assert share > 0.5, f"equality proves little: {share:.1%} of the keys are distinct"


def test_lightzero_is_put_back_as_it_was(tmp_path, monkeypatch):
    pytest.importorskip("lzero")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "trace.parquet"
    with quietly(tmp_path / "run.log", lambda line: None):
        run = lightzero_run_of(UNTRAINED)
        world_model = run.world_model
        before = dict(vars(world_model))
        tree = sys.modules["lzero.mcts.tree_search.mcts_ctree"].tree_muzero
        traverse = tree.batch_traverse
        with TraceWriter(path, run.header()) as writer, LightZeroRecorder(world_model, writer) as recorder:
            collect(run)
    # What an inference sets on the model is its own; of the recorder nothing is left.
    assert not set(vars(world_model)) & set(lightzero._OBSERVED_METHODS)
    assert not any(isinstance(each, lightzero.ObservedDict) for each in world_model.past_kv_cache_init_infer_envs)
    assert world_model.past_kv_cache_recurrent_infer is before["past_kv_cache_recurrent_infer"]
    assert tree.batch_traverse is traverse

    events = list(TraceReader(path).events())
    assert len(of(events, "lookup", "node")) == len(of(events, "store", "recur"))
    assert {each["search"] for each in events} == set(range(recorder.searches))
    assert Counter(each["simulation"] for each in of(events, "lookup", "node") if each["search"] == 0) == dict.fromkeys(
        range(25), 8
    )


def test_record_run_leaves_a_trace_and_nothing_else(tmp_path, monkeypatch, capfd):
    pytest.importorskip("lzero")
    monkeypatch.chdir(tmp_path)
    header = record_run(UNTRAINED, "out/trace.parquet", print)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["out", "trace.parquet"]
    reader = TraceReader("out/trace.parquet")
    assert reader.header == header
    assert header.source["trained"] is False
    assert header.source["distinct_keys"] < FEW_DISTINCT_KEYS
    assert header.geometry.name == "cartpole"
    assert header.pools == {"init": 2, "recur": 400}
    assert {each["search"] for each in reader.events()} == set(range(12))
    output = capfd.readouterr().out.splitlines()
    assert output[:2] == ["recorded 0 of 12 searches", "recorded 10 of 12 searches"]
    assert len(output) == 3
