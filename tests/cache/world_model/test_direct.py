"""Networks called directly: what a module computes, whatever becomes of its parts."""

import copy
import pickle

import numpy as np
import pytest
import torch
from test_model import model_of, observations
from torch import nn

from kvbench.measure.counters import DispatchMode
from kvcache import GEOMETRIES
from kvcache.world_model import WorldModel, WorldModelConfig
from kvcache.world_model.direct import direct, prepare

LAYERS = [
    nn.Linear(16, 24), nn.Linear(16, 24, bias=False), nn.Linear(256, 320), nn.LayerNorm(16), nn.LayerNorm(16, eps=0.1),
    nn.GELU(), nn.GELU("tanh"), nn.ReLU(), nn.Sequential(nn.Linear(16, 3), nn.GELU()),
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_layer_called_directly_computes_the_same(layer):
    x = torch.randn(3, 2, getattr(layer, "in_features", 16))
    assert torch.equal(direct(layer)(x), layer(x))


@torch.no_grad()
def test_an_embedding_called_directly_looks_up_the_same():
    indices = torch.tensor([[1, 3], [0, 1]])
    for layer in (nn.Embedding(4, 8), nn.Embedding(4, 8, max_norm=0.5)):
        assert torch.equal(direct(layer)(indices), layer(indices))


def predicted(model, observations=1):
    latents = np.random.default_rng(observations).standard_normal((3, 2, 32)).astype(np.float32)
    found = model.forward_without_cache(latents, [[0], [1], [0]])
    return np.concatenate([found.latents[:, 0], found.policy_logits, found.values[:, None]], 1)


def in_one_block(attention):
    places = [each.weight.data_ptr() for each in (attention.query, attention.key, attention.value)]
    return np.ptp(np.diff(places)) == 0 and places[1] - places[0] == attention.key.weight.nbytes


COPIES = [
    copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), lambda model: model.double().float(),
]  # fmt: skip


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "another type and back"])
def test_copies_read_their_own_weights_and_keep_them_in_one_block(copied):
    model = model_of({})
    wanted = predicted(model)
    other = copied(model)
    assert np.array_equal(predicted(other), wanted)
    assert all(in_one_block(block.attention) for block in other.transformer.blocks)
    for name in ("key", "query", "value"):
        changed = copy.deepcopy(other)
        with torch.no_grad():
            getattr(changed.transformer.blocks[0].attention, name).weight.mul_(1.5)
        assert not np.array_equal(predicted(changed), wanted)
        assert np.array_equal(predicted(other), wanted)


def test_weights_that_are_not_in_one_block_give_the_same():
    model = model_of({})
    wanted = predicted(model)
    key = model.transformer.blocks[0].attention.key
    key.weight = nn.Parameter(key.weight.clone(), requires_grad=False)
    assert not in_one_block(model.transformer.blocks[0].attention)
    assert np.array_equal(predicted(model), wanted)
    with torch.no_grad():
        key.weight.mul_(1.5)
    assert not np.array_equal(predicted(model), wanted)


def test_hooks_and_other_layers_are_called_once_prepared():
    model, called = model_of({}), []
    layers = {
        "projection": model.transformer.blocks[0].attention.projection,
        "key": model.transformer.blocks[1].attention.key,
        "block": model.transformer.blocks[1],
        "head": model.value_head,
    }
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
    prepare(model)
    predicted(model)
    assert sorted(called) == sorted(layers)


def test_a_hook_is_called_from_the_next_root_on_and_no_more_when_it_is_removed():
    model, called = model_of({}), []
    model.forward_initial_inference(observations(3, 1))
    hook = model.transformer.blocks[0].perceptron_norm.register_forward_hook(lambda *_: called.append(True))
    roots = model.forward_initial_inference(observations(3, 1))
    assert called
    called.clear()
    model.forward_recurrent_inference(roots.latents, [0, 1, 0])
    assert len(called) == 2
    hook.remove()
    model.forward_initial_inference(observations(3, 1))
    assert len(called) == 2


def test_a_simulation_asks_little_of_torch():
    """Of cartpole it was 260 operations, views among them, when each layer was a module's call."""

    class Counter(DispatchMode):
        operations = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.operations += 1
            return func(*args, **(kwargs or {}))

    for name, most in (("cartpole", 185), ("lunarlander", 260)):
        model = WorldModel(WorldModelConfig(GEOMETRIES[name], use_new_cache_manager=True))
        latents = model.forward_initial_inference(np.zeros((8, 4), np.float32)).latents
        with Counter() as counter:
            model.forward_recurrent_inference(latents, [0] * 8)
        assert counter.operations <= most
