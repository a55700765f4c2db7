"""What replayed contexts hold: reproducible, different for different tokens, exact in every dtype."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from traces import TINY

from kvbench.replay.content import (
    NO_CONTEXT,
    Contents,
    as_batch,
    extend_context,
    generated_context,
    latents_of,
    mix,
    mix_rows,
)  # fmt: skip
from kvcache.geometry import TOKENS_PER_STEP, Geometry

ROTARY = Geometry("tiny rotary", 2, 2, 16, 8, 2, 6, "rotary")
WORD = st.integers(0, 2**64 - 1)


def test_mix_is_the_same_everywhere():
    assert (mix(), mix(0), mix(1, 2), mix(2**64 - 1)) == (
        0,
        16294208416658607535,
        13608149317741381227,
        16490336266968443936,
    )


@given(WORD, WORD)
def test_mix_is_a_word_that_depends_on_numbers_and_order(one, other):
    assert 0 <= mix(one, other) < 2**64
    assert (mix(one, other) == mix(other, one)) == (one == other)
    assert mix(one) != mix(one, other)


def test_contexts_tell_history_from_key():
    first, second = extend_context(NO_CONTEXT, 1), extend_context(NO_CONTEXT, 2)
    histories = {
        extend_context(first, 3),
        extend_context(second, 3),
        extend_context(NO_CONTEXT, 3),
        generated_context(3),
    }
    assert len(histories) == 4
    assert NO_CONTEXT not in histories


@given(st.lists(st.tuples(WORD, WORD), min_size=1, max_size=5))
def test_arrays_are_mixed_as_numbers_are(pairs):
    ones, others = (np.array(each, dtype=np.uint64) for each in zip(*pairs, strict=True))
    assert mix_rows(ones, others).tolist() == [mix(*pair) for pair in pairs]
    assert mix_rows(ones[:, None], np.arange(2, dtype=np.uint64)).tolist() == [
        [mix(one, 0), mix(one, 1)] for one, _ in pairs
    ]


def test_latents_are_floats_in_the_unit_interval_that_belong_to_the_key():
    latents = latents_of([12345, 12346], 64)
    assert (latents.shape, latents.dtype) == ((2, 64), np.float32)
    assert latents.min() >= 0
    assert latents.max() < 1
    assert np.array_equal(latents[:1], latents_of([12345], 64))
    assert not np.array_equal(latents[0], latents[1])
    assert np.array_equal(latents_of([12345], 8)[0], latents[0, :8])


def test_tokens_differ_by_their_seeds_and_repeat():
    one, two = Contents(TINY), Contents(TINY)
    tokens = one.tokens([7, 8, 2**64 - 1])
    assert (tokens.shape, tokens.dtype) == ((3, one.width), np.int8)
    assert one.width == TINY.num_layers * 2 * TINY.embed_dim
    assert len({token.tobytes() for token in tokens}) == 3
    assert np.array_equal(tokens[1:], two.tokens([8, 2**64 - 1]))


def test_positions_change_contents_only_where_they_are_absolute():
    absolute, rotary = Contents(TINY), Contents(ROTARY)
    assert not rotary.positions.any()
    assert len({position.tobytes() for position in absolute.positions}) == TINY.context_length


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_shifted_token_is_exactly_the_token_at_its_new_position(dtype):
    contents = Contents(TINY)
    kept = TINY.slid_size
    tokens = contents.tokens(range(kept))
    old, new = (
        as_batch(tokens + contents.positions[first : first + kept], TINY, "cpu", dtype)
        for first in (TOKENS_PER_STEP, 0)
    )
    shift = contents.position_shift("cpu", dtype)
    assert shift.shape == (TINY.num_layers, 2, TINY.num_heads, kept, TINY.head_dim)
    assert shift.dtype == dtype
    assert torch.equal(old + shift, new)
    assert not torch.equal(old, new)


def test_a_batch_has_each_token_s_elements_in_the_order_layer_kind_head():
    contents = Contents(TINY)
    tokens = contents.tokens(range(6)).reshape(2, 3, -1)
    batch = as_batch(tokens, TINY, "cpu", torch.float32)
    assert batch.shape == (2, TINY.num_layers, 2, TINY.num_heads, 3, TINY.head_dim)
    assert np.array_equal(batch[1, ..., 2, :].flatten().numpy(), tokens[1, 2])


def test_no_shift_where_there_is_nothing_to_shift():
    assert Contents(ROTARY).position_shift("cpu", torch.float32) is None
    for context_length in (1, 2, 3):
        short = Geometry("short", 1, 2, 16, context_length, 2, 6, "absolute")
        assert Contents(short).position_shift("cpu", torch.float32) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_value_is_exact_in_short_dtypes(dtype):
    contents = Contents(Geometry("long", 2, 2, 64, 162, 2, 6, "absolute"))
    values = contents.tokens(range(162)) + contents.positions
    assert values.dtype == np.int8
    assert int(values.max()) - int(values.min()) > 150  # no part of the range was cut off
    assert np.array_equal(torch.from_numpy(values).to(dtype).float().numpy(), values)


def test_contents_are_the_same_everywhere():
    """Replays of one trace on two machines are compared by what they find."""
    assert (extend_context(7, 3), generated_context(3)) == (914670670012387040, 5120491529425815822)
    assert (latents_of([12345], 3)[0] * 2**24).tolist() == [2232706, 3436252, 2005591]
    contents = Contents(TINY)
    assert contents.tokens([mix(7, 1)])[0, :8].tolist() == [45, 6, 25, -57, -29, 38, 10, 59]
    assert contents.positions[2, :8].tolist() == [31, 6, 11, 2, -11, 26, 5, -32]


def test_a_width_that_is_no_multiple_of_eight_elements_is_filled():
    contents = Contents(Geometry("odd", 1, 1, 3, 8, 2, 6, "absolute"))
    assert contents.tokens([5, 6]).shape == (2, 6)
