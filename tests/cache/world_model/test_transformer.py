"""The transformer, against attention written out token by token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_model import GEOMETRY, model_of

from kvcache.keys_values import KeysValues
from kvcache.world_model.transformer import rotated, rotation


def empty(rows, context_length=8):
    return KeysValues(rows, 2, context_length, 32, 2)


def tokens(rows, count, seed=0):
    return torch.randn(rows, count, 32, generator=torch.Generator().manual_seed(seed))


def judged_attention(block, x, positions, rotary):
    """One row ``[n, E]`` through one block's attention, in float64."""
    attention = block.attention.double()
    x = block.attention_norm.double()(x.double())
    out = torch.zeros_like(x)
    for head in range(2):
        part = slice(16 * head, 16 * head + 16)
        query, key, value = (layer(x)[:, part] for layer in (attention.query, attention.key, attention.value))
        if rotary:
            query, key = (judged_rotation(each, positions) for each in (query, key))
        for new in range(len(x)):
            weights = torch.exp(key[: new + 1] @ query[new] / 4)
            out[new, part] = (weights[:, None] * value[: new + 1]).sum(0) / weights.sum()
    return attention.projection(out)


def judged_rotation(x, positions):
    """Pairs as complex numbers."""
    half = x.shape[1] // 2
    angles = positions[:, None].double() * 10000.0 ** (-torch.arange(half).double() / half)
    turned = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=1)


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
@pytest.mark.parametrize("split", [1, 2, 4])
def test_attention_is_what_the_formula_says_however_tokens_come_in(positions, split):
    model = model_of({}, positions=positions)
    block, x = model.transformer.blocks[0], tokens(3, 4)
    places = torch.arange(4).expand(3, 4) + torch.tensor([[0], [5], [2000]])
    cache, outputs = empty(3), []
    for begin in range(0, 4, split):
        part = slice(begin, begin + split)
        mask = model.transformer._mask(split, cache[0].size, None, torch.device("cpu"))
        turned = rotation(places[:, part], 16, x.dtype) if positions == "rotary" else None
        outputs.append(block.attention(block.attention_norm(x[:, part]), turned, cache[0], mask))
    found = torch.cat(outputs, dim=1)
    for row in range(3):
        wanted = judged_attention(block, x[row], places[row], positions == "rotary")
        assert torch.allclose(found[row].double(), wanted, atol=1e-5)
        model.float()


def test_rotated_products_depend_on_the_distance_alone():
    query, key = (torch.randn(1, 1, 1, 16) for _ in range(2))
    at = {place: rotation(torch.tensor([[place]]), 16, torch.float32) for place in (0, 3, 7, 10, 1000, 1003)}
    products = [float((rotated(query, at[place + 3]) * rotated(key, at[place])).sum()) for place in (0, 7, 1000)]
    assert np.ptp(products) < 1e-4
    assert torch.equal(rotated(query, at[0]), query)


def test_padding_that_is_masked_is_not_attended_to():
    transformer, x = model_of({}).transformer, tokens(2, 3)
    positions = torch.arange(2, 3).expand(2, 1)
    outputs = []
    for front in (0, 2):
        cache = empty(2)
        for layer in cache:
            if front:
                zeros = torch.zeros(2, 2, front, 16)
                layer.update(zeros, zeros)
        padding = torch.zeros(2, front, dtype=torch.bool) if not front else torch.ones(2, front, dtype=torch.bool)
        transformer(x[:, :2], torch.arange(2).expand(2, 2), cache, padding)
        padding = torch.cat([padding, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
        outputs.append(transformer(x[:, 2:], positions, cache, padding))
    assert torch.allclose(*outputs, atol=1e-6)


def test_what_is_added_when_a_window_slides():
    """Of each layer, its weights times the difference of two positions' vectors, head by head."""
    transformer = model_of({}).transformer
    shift = transformer.position_shift()
    assert shift.shape == (2, 2, 2, 5, 16)
    table = transformer.positions.weight
    for layer, block in enumerate(transformer.blocks):
        for kind, linear in enumerate((block.attention.key, block.attention.value)):
            for place in range(5):
                wanted = linear(table[place]) - linear(table[place + 2])
                assert torch.allclose(shift[layer, kind, :, place].reshape(-1), wanted, atol=1e-5)


@pytest.mark.parametrize(("positions", "context_length"), [("rotary", 8), ("absolute", 2)])
def test_nothing_is_added_where_positions_turn_or_nothing_is_kept(positions, context_length):
    geometry = replace(GEOMETRY, positions=positions, context_length=context_length)
    assert model_of({}, geometry.context_length, positions).transformer.position_shift() is None
