"""A replay with keys of 8 bits: another latent's context is a stale hit, and a miss where keys are verified."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xxhash

from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents, run_step
from kvbench.replay.outcomes import Outcome
from kvbench.replay.verify import CheckedContent
from kvbench.trace.steps import Step
from kvcache import BACKENDS, CacheConfig, Geometry, Scope, make_backend

GEOMETRY = Geometry("tiny", num_layers=1, num_heads=1, embed_dim=2, context_length=8, env_num=3, num_simulations=60)


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize("verify_keys", [False, True])
def test_in_a_replay_another_latent_s_context_is_a_stale_hit(backend, verify_keys, monkeypatch):
    whole = xxhash.xxh64_intdigest
    short = SimpleNamespace(xxh64_intdigest=lambda data: whole(data) % 256)
    monkeypatch.setattr("kvcache.hashing.xxhash", short)  # the checks of a replay need theirs whole
    cache = make_backend(backend, CacheConfig(GEOMETRY, verify_keys=verify_keys))
    contents = Contents(GEOMETRY)
    checked, cache.position_shift = CheckedContent(cache, contents), contents.position_shift("cpu", torch.float32)
    latents = Latents(4, "cpu")
    picks = np.random.default_rng(0)
    for number in range(60):
        step = Step(Scope.NODE if number else Scope.ROOT, 0, number, [0, 1, 2])
        step.stores = [3 * number + env for env in range(3)]
        step.keys = [1 + store for store in step.stores]
        step.nodes = [3 * int(picks.integers(number)) + env if number else None for env in range(3)]
        step.parents = [None if node is None else 1 + node for node in step.nodes]
        step.recorded_hits, step.depths, step.tokens = [None] * 3, [0] * 3, 2 if number else 1
        run_step(cache, step, latents.inputs(step), checked, lambda operation, call, *args: call(*args))
    outcomes = checked.outcomes.total
    assert (outcomes[Outcome.STALE_HIT] > 0) is not verify_keys
    assert not outcomes[Outcome.WRONG_CONTENT]
