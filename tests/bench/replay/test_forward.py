"""The forward over a batch: the same numbers from every layout, and a layout that makes it slower is counted."""

from dataclasses import replace

import pytest
import torch
from faulty_backends import TokenMajor
from traces import TINY

from kvbench.measure.stopwatch import HostStopwatch
from kvbench.replay.drive import Latents
from kvbench.replay.forward import AttendingContent, Attention, strided_bytes
from kvbench.replay.lockstep import take_turns
from kvcache import BACKENDS, GEOMETRIES, CacheConfig, KeysValues, Scope, make_backend

ROWS, TOKENS = 3, 4
GEOMETRY = replace(TINY, env_num=ROWS)


def batch(layout):
    """The same content, head by head (a layer's keys are contiguous) or token by token."""
    layers, heads, head_dim = GEOMETRY.num_layers, GEOMETRY.num_heads, GEOMETRY.head_dim
    block = torch.randn(
        ROWS, layers, 2, heads, GEOMETRY.context_length, head_dim, generator=torch.Generator().manual_seed(1)
    )
    order = {
        "head by head": (1, 2, 0, 3, 4, 5),
        "row by row": (0, 1, 2, 3, 4, 5),
        "token by token": (4, 0, 1, 2, 3, 5),
        "token by token of each row": (0, 4, 1, 2, 3, 5),
        "elements apart": (5, 0, 1, 2, 3, 4),
    }[layout]
    back = [order.index(axis) for axis in range(6)]
    return KeysValues.from_block(block.permute(order).contiguous().permute(back), TOKENS)


LAYOUTS = {
    "head by head": False,
    "row by row": False,
    "token by token": True,
    "token by token of each row": True,
    "elements apart": True,
}


class TestStridedBytes:
    @pytest.mark.parametrize(("layout", "strided"), LAYOUTS.items())
    def test_a_layout_whose_tokens_are_apart_is_counted(self, layout, strided):
        live = ROWS * GEOMETRY.num_layers * 2 * GEOMETRY.embed_dim * TOKENS * 4
        assert strided_bytes(batch(layout)) == live * strided

    @pytest.mark.parametrize("name", [name for name in BACKENDS if name != "new:reference"])
    def test_no_storage_has_any(self, name):
        cache = make_backend(name, CacheConfig(GEOMETRY))
        envs = list(range(ROWS))
        for keys, new in (([None] * ROWS, [1, 2, 3]), ([1, 2, 3], [4, 5, 6])):
            cache.lookup(envs, keys, Scope.ROOT)
            cache.assemble()
            assert strided_bytes(cache.keys_values_wm) == 0
            Attention(GEOMETRY)(cache.keys_values_wm, 2)
            cache.store(envs, new, Scope.ROOT)
        assert cache.keys_values_wm.size == 4


class TestAttention:
    def test_it_is_softmax_attention_over_all_tokens_and_the_new_ones(self):
        given = batch("head by head")
        found = Attention(GEOMETRY)(given, 2)
        assert given.size == TOKENS + 2
        keys, values = given[-1].get()
        query, _, _ = Attention(GEOMETRY)._projected(ROWS)
        wanted = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
        assert torch.allclose(found, wanted, atol=1e-6)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout_gives_the_same(self, layout):
        found, wanted = (Attention(GEOMETRY)(batch(each), 2) for each in (layout, "head by head"))
        assert torch.allclose(found, wanted, atol=1e-6)

    @pytest.mark.parametrize("rows", [1, 2, ROWS, 3 * ROWS, 3 * ROWS + 1])
    def test_batches_of_fewer_environments_or_of_several_leaves(self, rows):
        block = torch.cat([batch("head by head").block] * 4)[:rows]
        assert Attention(GEOMETRY)(KeysValues.from_block(block, 2), 1).shape[0] == rows


def test_a_batch_of_all_layers_token_by_token_is_slower_to_attend_to():
    """What the metric is for: such a layer's rows are strided, and copied before they are multiplied."""
    geometry = replace(GEOMETRIES["visual-match"], num_layers=8)
    shape = (geometry.context_length, geometry.env_num, geometry.num_layers, 2, geometry.num_heads, geometry.head_dim)
    apart = KeysValues.from_block(torch.ones(shape).permute(1, 2, 3, 4, 0, 5), 150)
    ours = make_backend("new:paged", CacheConfig(geometry)).keys_values_wm
    attention, stopwatch, laps = Attention(geometry), HostStopwatch(), {True: [], False: []}
    for _ in range(5):
        for batch in (apart, ours):
            batch.resize(150)
            laps[batch is apart].append(stopwatch.time(attention, batch, 1)[1][0])
    assert min(laps[True]) > 1.5 * min(laps[False])  # ten times and more


class Ticking:
    """A stopwatch that counts calls."""

    calls = 0

    def time(self, call, *args):
        self.calls += 1
        return call(*args), (self.calls, None)


def test_a_batch_whose_tokens_are_apart_is_seen_step_by_step(filled_steps):
    stopwatch = Ticking()
    contents = {
        name: AttendingContent(made(CacheConfig(TINY)), stopwatch)
        for name, made in (("legacy", lambda config: make_backend("legacy", config)), ("apart", TokenMajor))
    }
    clocks = take_turns(filled_steps, contents, Latents(TINY.embed_dim, "cpu"), stopwatch)
    steps = len(clocks["legacy"].steps)
    assert steps == 2 * TINY.num_simulations
    assert contents["legacy"].strided == [0] * steps
    tokens = clocks["apart"].longest
    assert contents["apart"].strided == [TINY.env_num * TINY.num_layers * 2 * TINY.embed_dim * 4 * n for n in tokens]
    assert len(contents["apart"].laps) == steps
