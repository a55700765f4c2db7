"""Batches that are set aside and compared at once: the same is found as when each is compared at once."""

from itertools import count

import pytest
import torch
from traces import TINY, steps_of, synthetic

from kvbench.replay import deferred
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvcache import CacheConfig, make_backend

CONTENTS = Contents(TINY)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    path = synthetic(tmp_path_factory.mktemp("deferred") / "trace", TINY, 4, episode_length=6, transpositions=0.2)
    return steps_of(path)


def wrong_element(tensors, row, start, other):
    tensors[-1][row, -1, start, -1] += 1


def anothers_token(tensors, row, start, other):
    """Sound by itself, and at its place: only the order of tokens is one that no context has."""
    for tensor in tensors:
        tensor[row, :, start] = tensor[other, :, start]


def verify(steps, damage, damaged, **config):
    """A replay in which ``damage`` is done to the longest row of the batches ``damaged``."""
    backend = make_backend("new", CacheConfig(TINY, **config))
    backend.position_shift = CONTENTS.position_shift("cpu", torch.float32)
    batches, assemble = count(), backend.assemble

    def spoil():
        sizes = assemble()
        if next(batches) in damaged and max(sizes):
            row = sizes.index(max(sizes))
            others = [each for each, size in enumerate(sizes) if size == max(sizes) and each != row]
            if others or damage is wrong_element:
                tensors = backend.keys_values_wm.layer_tensors()
                damage(tensors, row, backend.row_start(row), others[-1:] and others[-1])
        return sizes

    backend.assemble = spoil
    return verify_replay(backend, steps, CONTENTS, Latents(TINY.embed_dim, "cpu"))


@pytest.mark.parametrize("damage", [wrong_element, anothers_token])
@pytest.mark.parametrize("config", [{}, {"recur_pool_size": 5, "init_pool_size": 1}], ids=["all kept", "evicting"])
@pytest.mark.parametrize("damaged", [(), (1,), (2, 9), (3, 4, 5, 16, 25)], ids=str)
def test_the_same_is_found_as_when_each_batch_is_compared_at_once(steps, damage, damaged, config, monkeypatch):
    together = verify(steps, damage, damaged, **config)
    monkeypatch.setattr(deferred, "_MOST_ROWS", 1)
    apart = verify(steps, damage, damaged, **config)
    assert together.faults == apart.faults
    assert together.outcomes == apart.outcomes
    assert bool(together.faults) is bool(damaged)


@pytest.mark.parametrize("damage", [wrong_element, anothers_token])
def test_what_grew_out_of_a_damaged_row_is_wrong_content_too(steps, damage):
    """The new context has the damage in it, though its own tokens are sound, and the rows that extend it find it."""
    found = verify(steps, damage, (1,))
    outcomes = found.outcomes.total
    assert outcomes[Outcome.WRONG_CONTENT] > 1
    assert outcomes[Outcome.WRONG_CONTENT] + outcomes[Outcome.STALE_HIT] == len(found.faults)
