"""What replayed contexts hold: reproducible, different for different tokens, exact in every dtype."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from traces import TINY

from kvbench.replay.content import NO_CONTEXT, Contents, extend_context, generated_context, latent_of, mix
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


def test_latents_are_floats_in_the_unit_interval_that_belong_to_the_key():
    latent = latent_of(12345, 64)
    assert (latent.shape, latent.dtype) == ((64,), np.float32)
    assert latent.min() >= 0
    assert latent.max() < 1
    assert np.array_equal(latent, latent_of(12345, 64))
    assert not np.array_equal(latent, latent_of(12346, 64))
    assert np.array_equal(latent_of(12345, 8), latent[:8])


def test_tokens_differ_by_context_and_index_and_repeat():
    one, two = Contents(TINY), Contents(TINY)
    tokens = [(context, index) for context in (7, 8) for index in (0, 1)]
    values = {one.token(*token).tobytes() for token in tokens}
    assert len(values) == 4
    assert values == {two.token(*token).tobytes() for token in tokens}
    assert one.token(7, 0).shape == (TINY.num_layers, 2, TINY.num_heads, TINY.head_dim)


def test_positions_change_contents_only_where_they_are_absolute():
    absolute, rotary = Contents(TINY), Contents(ROTARY)
    assert np.array_equal(rotary.sequence([(5, 0)], first=0), rotary.sequence([(5, 0)], first=3))
    assert not np.array_equal(absolute.sequence([(5, 0)], first=0), absolute.sequence([(5, 0)], first=3))
    assert len({position.tobytes() for position in absolute.positions}) == TINY.context_length


def test_a_sequence_is_its_tokens_at_their_positions():
    contents = Contents(TINY)
    tokens = [(5, 0), (5, 1), (6, 0)]
    whole = contents.sequence(tokens)
    for position, token in enumerate(tokens):
        assert np.array_equal(whole[position], contents.sequence([token], first=position)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_shifted_token_is_exactly_the_token_at_its_new_position(dtype):
    contents = Contents(TINY)
    kept = TINY.slid_size
    tokens = [(context, 0) for context in range(kept)]
    # [n, L, 2, H, D] to [L, 2, H, n, D]
    old, new = (
        torch.from_numpy(np.moveaxis(contents.sequence(tokens, first), 0, 3).copy()).to(dtype)
        for first in (TOKENS_PER_STEP, 0)
    )
    shift = contents.position_shift("cpu", dtype)
    assert shift.shape == (TINY.num_layers, 2, TINY.num_heads, kept, TINY.head_dim)
    assert shift.dtype == dtype
    assert torch.equal(old + shift, new)
    assert not torch.equal(old, new)


def test_no_shift_where_there_is_nothing_to_shift():
    assert Contents(ROTARY).position_shift("cpu", torch.float32) is None
    for context_length in (1, 2, 3):
        short = Geometry("short", 1, 2, 16, context_length, 2, 6, "absolute")
        assert Contents(short).position_shift("cpu", torch.float32) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_value_is_exact_in_short_dtypes(dtype):
    contents = Contents(Geometry("long", 2, 2, 64, 162, 2, 6, "absolute"))
    values = contents.sequence([(context, 0) for context in range(162)])
    assert values.dtype == np.int8
    assert int(values.max()) - int(values.min()) > 150  # no part of the range was cut off
    assert np.array_equal(torch.from_numpy(values).to(dtype).float().numpy(), values)


def test_contents_are_the_same_everywhere():
    """Replays of one trace on two machines are compared by what they find."""
    assert (extend_context(7, 3), generated_context(3)) == (17670481865470212032, 12773366489153039575)
    assert (latent_of(12345, 3) * 2**24).tolist() == [2232706, 3436252, 2005591]
    contents = Contents(TINY)
    assert contents.token(7, 1)[0, 0].tolist() == [[45, 6, 25, -57, -29, 38, 10, 59], [-55, 7, 49, 51, 35, 26, 23, -28]]
    assert contents.positions[2, 0, 0].tolist() == [
        [31, 6, 11, 2, -11, 26, 5, -32],
        [-10, 12, 23, -32, -20, 1, 16, -18],
    ]


def test_few_tokens_are_remembered_at_once():
    """However long the replay, they need little memory."""
    assert Contents(TINY).token.cache_info().maxsize == 4096


def test_a_shape_that_is_no_multiple_of_eight_elements_is_filled():
    contents = Contents(Geometry("odd", 1, 1, 3, 8, 2, 6, "absolute"))
    assert contents.sequence([(5, 0), (5, 1)]).shape == (2, 1, 2, 1, 3)
