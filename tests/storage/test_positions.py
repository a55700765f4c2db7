"""Corrections of tokens that stand elsewhere than where they were computed."""

import pytest
import torch

from kvcache.storage.positions import NO_TOKENS, PositionShifts

KEPT = 5  # of a context of 8 tokens


def given(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 2, KEPT, 3, generator=generator).to(dtype)


def row_of(shift, position):
    return shift[:, :, :, position].reshape(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_slide_is_what_was_given_bit_for_bit(dtype):
    shift = given(dtype)
    shifts = PositionShifts(shift)
    assert len(shifts.steps) == KEPT
    for position, row in enumerate(shifts.steps):
        assert torch.equal(shifts.rows[row], row_of(shift, position))


def test_several_slides_are_their_sum_rounded_once():
    shift = given()
    shifts = PositionShifts(shift)
    (row,) = shifts.moves(NO_TOKENS.grown(6, 1))
    exact = sum(row_of(shift.double(), position) for position in (4, 2, 0))
    assert torch.equal(shifts.rows[row], exact.float())


def test_what_stands_where_it_was_computed_needs_nothing():
    shifts = PositionShifts(given())
    assert shifts.moves(NO_TOKENS) is None
    assert shifts.moves(NO_TOKENS.grown(0, 7)) is None
    assert not shifts.rows[0].any()


def test_corrections_are_made_once_and_stay_when_room_is_made_for_more():
    shifts = PositionShifts(given())
    first = shifts.rows[shifts.steps].clone()
    for size in (2, 4, 6):
        moved = NO_TOKENS.grown(size, 1)
        assert shifts.moves(moved) is shifts.moves(moved)
    assert torch.equal(shifts.rows[shifts.steps], first)


def test_contexts_that_grew_alike_are_one():
    grown = NO_TOKENS.grown(0, 3).grown(3, 2)
    assert grown.positions == (0, 1, 2, 3, 4)
    assert NO_TOKENS.grown(0, 5) is grown
    slid = grown.grown(5, 2).part(2, 5)
    assert slid.positions == (2, 3, 4, 5, 6)
    assert grown.grown(5, 2).part(2, 5) is slid
    assert slid.part(2, 99).grown(5, 2).positions == (4, 5, 6, 5, 6)


@pytest.mark.parametrize("origin", [1, 3])
def test_no_slide_moves_a_token_by_half_a_step(origin):
    with pytest.raises(AssertionError, match=f"no number of slides moves a token from {origin} to 0"):
        PositionShifts(given()).moves(NO_TOKENS.grown(origin, 1))
