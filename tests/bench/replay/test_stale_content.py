"""Any cache but the legacy code returns what was stored last under a key, or nothing: all else is a fault."""

from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from suite import replays
from traces import TINY, steps_of, synthetic

from kvbench.cli.main import main
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvcache import BACKENDS, CacheConfig, KVCacheManager, Scope, make_backend
from kvcache.legacy import LEGACY_0_2_0, LegacyCache


class AnothersOnce(KVCacheManager):
    """One lookup finds another key's context."""

    wrong_at = 20
    calls = 0

    def lookup(self, envs, keys, scope):
        keys = list(keys)
        self.calls += 1
        others = [key for key in self.recur_pool if key not in keys]
        if self.calls >= self.wrong_at and scope is Scope.NODE and others and keys[0] in self.recur_pool:
            keys[0], self.wrong_at = others[0], 10**9
        return super().lookup(envs, keys, scope)


class KeepsTheFirst(KVCacheManager):
    """A key that is stored again keeps its first context, once."""

    kept = None

    def store(self, envs, keys, scope, priorities=None):
        keys = list(keys)
        again = [row for row, key in enumerate(keys) if key in self.recur_pool]
        if self.kept is None and scope is Scope.NODE and again:
            self.kept, keys[again[0]] = keys[again[0]], 1  # under a key that nobody asks for
        super().store(envs, keys, scope, priorities)


def verify(backend, steps):
    backend.position_shift = Contents(TINY).position_shift("cpu", torch.float32)
    return verify_replay(backend, steps, Contents(TINY), Latents(TINY.embed_dim, "cpu"))


def test_one_stale_hit_is_a_fault_and_counted_as_what_it_is(tmp_path):
    steps = steps_of(synthetic(tmp_path / "trace.parquet", TINY, 5))
    found = verify(AnothersOnce(CacheConfig(TINY)), steps)
    assert found.outcomes.total[Outcome.STALE_HIT] >= 1
    assert "stale hit: under key" in found.faults[0]


def test_an_outdated_context_of_the_right_key_is_a_fault(tmp_path):
    steps = steps_of(synthetic(tmp_path / "trace.parquet", TINY, 30, transpositions=0.5, num_actions=2))
    assert verify(KVCacheManager(CacheConfig(TINY)), steps).faults == []
    found = verify(KeepsTheFirst(CacheConfig(TINY)), steps)
    assert "not the one stored last" in found.faults[0]


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name.startswith("new")])
def test_what_is_stored_again_is_found_as_it_was_stored_last(backend, tmp_path):
    steps = steps_of(synthetic(tmp_path / "trace.parquet", TINY, 10, transpositions=0.5, num_actions=2))
    assert verify(make_backend(backend, CacheConfig(TINY, recur_pool_size=7)), steps).faults == []


def test_legacys_stale_hits_are_reported_and_no_faults(tmp_path):
    steps = steps_of(synthetic(tmp_path / "trace.parquet", TINY, 5))
    found = verify(LegacyCache(CacheConfig(TINY, recur_pool_size=3, init_pool_size=1), LEGACY_0_2_0), steps)
    assert found.outcomes.total[Outcome.STALE_HIT] > 0
    assert found.faults == []


class TestEverywhere:
    @pytest.fixture
    def trace(self, tmp_path, monkeypatch):
        monkeypatch.setitem(BACKENDS, "new:slab", lambda config: AnothersOnce(replace(config, storage="slab")))
        path = tmp_path / "trace.parquet"
        synthetic(path, TINY, 5)
        return path

    def replay(self, trace, *backends):
        options = [each for backend in backends for each in ("--backend", backend)]
        arguments = ["replay", str(trace), *options, "--repetitions", "0", "--capacity", "init=1,recur=3"]
        return CliRunner().invoke(main, arguments)

    def test_the_replay_exits_with_1(self, trace):
        done = self.replay(trace, "legacy", "new:slab")
        assert done.exit_code == 1
        assert "new:slab: search" in done.output
        assert "stale hit: under key" in done.output

    def test_the_replay_of_legacys_stale_hits_exits_with_0(self, trace):
        done = self.replay(trace, "legacy-0.2.0", "new:private")
        assert done.exit_code == 0, done.output

    def test_asvs_cells_fail(self, trace):
        steps = steps_of(trace)
        with pytest.raises(AssertionError, match="stale hit: under key"):
            replays._verified("new:slab", steps, CacheConfig(TINY))
