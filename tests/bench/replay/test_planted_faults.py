"""One wrong row among all lookups of a replay is found, whatever is wrong with it, on every backend."""

from dataclasses import replace
from functools import cache
from itertools import count

import numpy as np
import pytest
import torch
from traces import TINY, steps_of, synthetic

from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvcache import BACKENDS, CacheConfig, make_backend

CONTENTS = Contents(TINY)
FIRST_KEYS, FIRST_VALUES, OTHER_KEYS = 0, 1, 2  # of the tensors: K and V of the first layer, K of the second


def positions(place):
    """What a position adds, as ``live`` of ``plant`` has it: ``[2 L, H, D]``."""
    shape = 2 * TINY.num_layers, TINY.num_heads, TINY.head_dim
    return torch.from_numpy(CONTENTS.positions[place].reshape(shape))


def swap(one, other):
    kept = one.clone()
    one.copy_(other)
    other.copy_(kept)


def wrong_element(live):
    live[-1][-1, 0, -1] += 1


def smallest_difference(live):
    live[FIRST_VALUES][0, 1, 3] = torch.nextafter(live[FIRST_VALUES][0, 1, 3], torch.tensor(1000.0))


def not_a_number(live):
    live[FIRST_KEYS][0, 0, -1] = torch.nan


def another_order(live):
    for tensor in live:
        swap(tensor[:, 0], tensor[:, 1])


def another_position(live):
    for tensor, old, new in zip(live, positions(1), positions(2), strict=True):
        tensor[:, 1] += new - old


def no_position(live):
    for tensor, old in zip(live, positions(0), strict=True):
        tensor[:, 0] -= old


def another_layer(live):
    swap(live[FIRST_KEYS], live[OTHER_KEYS])


def keys_for_values(live):
    swap(live[FIRST_KEYS], live[FIRST_VALUES])


def another_head(live):
    swap(live[OTHER_KEYS][0], live[OTHER_KEYS][1])


def a_token_twice(live):
    for tensor in live:
        tensor[:, 0] = tensor[:, 1]


def one_head_of_a_token_lost(live):
    live[FIRST_VALUES][1, 0] = 0


FAULTS = [
    wrong_element, smallest_difference, not_a_number, another_order, another_position, no_position, another_layer,
    keys_for_values, another_head, a_token_twice, one_head_of_a_token_lost,
]  # fmt: skip


@cache
def trace(folder, geometry, searches):
    return steps_of(synthetic(folder / f"{searches}.parquet", geometry, searches, episode_length=6))


def verify(name, steps, fault=None, geometry=TINY):
    """A replay in which ``fault`` spoils the tokens of one row of the last batch, after it was assembled."""
    backend = make_backend(name, CacheConfig(geometry))
    backend.position_shift = CONTENTS.position_shift("cpu", torch.float32)
    batches, assemble = count(1), backend.assemble
    last = sum(bool(step.envs) for step in steps)

    def spoil():
        sizes = assemble()
        if next(batches) == last and fault is not None:
            row = int(np.argmax(sizes))
            live = slice(backend.row_start(row), backend.row_start(row) + sizes[row])
            fault([tensor[row, :, live] for tensor in backend.keys_values_wm.layer_tensors()])
        return sizes

    backend.assemble = spoil
    return verify_replay(backend, steps, CONTENTS, Latents(TINY.embed_dim, "cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("planted")


@pytest.mark.parametrize("name", list(BACKENDS))
def test_every_fault_is_found_on_every_backend(name, folder):
    steps = trace(folder, TINY, 3)
    sound = verify(name, steps)
    assert sound.faults == []
    for fault in FAULTS:
        found = verify(name, steps, fault)
        assert len(found.faults) == 1, fault.__name__
        assert "was never stored" in found.faults[0]
        assert found.outcomes.total - sound.outcomes.total == {Outcome.WRONG_CONTENT: 1}, fault.__name__


@pytest.mark.slow
@pytest.mark.parametrize("fault", [smallest_difference, another_position])
def test_one_wrong_row_in_ten_thousand_lookups_is_found(fault, folder):
    large = replace(TINY, env_num=16, num_simulations=50)
    steps = trace(folder, large, 13)
    found = verify("new", steps, fault, large)
    assert found.outcomes.total.total() > 10_000
    assert found.outcomes.total[Outcome.WRONG_CONTENT] == len(found.faults) == 1


def test_another_rows_context_is_another_keys(folder):
    steps = trace(folder, TINY, 3)
    backend = make_backend("new", CacheConfig(TINY))
    backend.position_shift = CONTENTS.position_shift("cpu", torch.float32)
    assemble = backend.assemble

    def rows_of_the_first():
        sizes = assemble()
        if sizes[0] == sizes[1] > 1:
            for tensor in backend.keys_values_wm.layer_tensors():
                tensor[1] = tensor[0]
        return sizes

    backend.assemble = rows_of_the_first
    found = verify_replay(backend, steps, CONTENTS, Latents(TINY.embed_dim, "cpu")).outcomes.total
    assert found[Outcome.STALE_HIT] > 0
    assert found[Outcome.WRONG_CONTENT] == 0
