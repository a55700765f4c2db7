"""Corrections of tokens that stand elsewhere than where they were computed."""

import copy
import pickle

import pytest
import torch

from kvcache.storage.positions import NO_TOKENS, Origins, PositionShifts

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
    for position in range(KEPT):
        assert torch.equal(shifts.rows[shifts.row(position + 2, position)], row_of(shift, position))


def test_several_slides_are_their_sum_rounded_once():
    shift = given()
    shifts = PositionShifts(shift)
    row = shifts.row(6, 0)
    exact = sum(row_of(shift.double(), position) for position in (4, 2, 0))
    assert torch.equal(shifts.rows[row], exact.float())


def test_a_token_at_its_original_position_needs_no_correction():
    shifts = PositionShifts(given())
    assert shifts.moves(NO_TOKENS) is None
    assert shifts.moves(NO_TOKENS.grown(0, 7, 7)) is None
    assert not shifts.rows[0].any()


def test_corrections_are_made_once_and_stay_when_room_is_made_for_more():
    shifts = PositionShifts(given())
    single = [shifts.row(position + 2, position) for position in range(KEPT)]
    first = shifts.rows[single].clone()
    for end in (5, 6, 7):
        moved = NO_TOKENS.grown(0, end, end).grown(2, end, 0)
        assert shifts.moves(moved) is shifts.moves(moved)
        moved = moved.grown(2, end, 2)
        assert shifts.moves(moved) is shifts.moves(moved)
    assert len(shifts.rows) > 1 + KEPT
    assert torch.equal(shifts.rows[single], first)


def test_contexts_that_grew_alike_are_one():
    grown = NO_TOKENS.grown(0, 3, 3).grown(0, 5, 2)
    assert grown.positions == (0, 1, 2, 3, 4)
    assert NO_TOKENS.grown(0, 5, 5) is grown
    slid = grown.grown(2, 7, 2)
    assert slid.positions == (2, 3, 4, 5, 6)
    assert grown.grown(2, 7, 2) is slid
    assert slid.grown(2, 7, 2).positions == (4, 5, 6, 5, 6)
    assert slid.grown(2, 4, 0).positions == (4, 5)  # the window's end is cut off
    assert slid.grown(6, 8, 2).positions == (6, 7)  # nothing is left of what was there


def test_copies_of_origins_are_the_same_ones():
    grown = NO_TOKENS.grown(0, 3, 3)
    assert copy.deepcopy(grown) is grown
    assert pickle.loads(pickle.dumps(grown)) is grown


@pytest.mark.parametrize("origin", [1, 3])
def test_no_slide_moves_a_token_by_half_a_step(origin):
    with pytest.raises(AssertionError, match=f"no number of slides moves a token from {origin} to 0"):
        PositionShifts(given()).row(origin, 0)


def plain_sum(shift, old, new):
    """What moves a token from ``old`` to ``new``, slide by slide, exactly."""
    total = torch.zeros_like(row_of(shift, 0), dtype=torch.float64)
    while old > new:
        old -= 2
        total += row_of(shift.double(), old)
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kept", [1, 2, 5, 12])
def test_any_correction_is_the_plain_sum_in_its_dtype(dtype, kept):
    shift = torch.randn(2, 2, 2, kept, 3).to(dtype)
    shifts = PositionShifts(shift)
    for old in range(kept + 2):
        for new in range(old % 2, old + 1, 2):
            if new >= kept:
                continue
            origins = Origins((*range(new), old))
            moves = shifts.moves(origins)
            if old == new:
                assert moves is None
            else:
                assert moves[:-1, 0].tolist() == [0] * new
                assert torch.equal(shifts.rows[moves[-1, 0]], plain_sum(shift, old, new).to(dtype))
    assert shifts.rows.dtype is dtype
    assert not shifts.rows[0].any()


def test_whole_numbers_are_moved_exactly():
    shift = torch.arange(2 * 2 * 2 * KEPT * 3).view(2, 2, 2, KEPT, 3).float()
    shifts = PositionShifts(shift)
    row = shifts.row(6, 0)
    assert torch.equal(shifts.rows[row].double(), plain_sum(shift, 6, 0))


def test_a_position_that_is_not_contiguous_or_learned_is_taken_as_it_is():
    shift = given()
    strided = shift.movedim(3, 0).contiguous().movedim(0, 3).requires_grad_()
    shifts, wanted = PositionShifts(strided), PositionShifts(shift)
    assert torch.equal(shifts.rows, wanted.rows)
    assert not shifts.rows.requires_grad


def test_what_was_given_may_change_afterwards():
    shift = given()
    shifts = PositionShifts(shift)
    kept = shift.clone()
    shift.fill_(9)
    row = shifts.row(4, 0)
    assert torch.equal(shifts.rows[row], plain_sum(kept, 4, 0).float())


def test_no_token_moves_forwards():
    with pytest.raises(AssertionError, match="a token at 0 cannot slide to 2"):
        PositionShifts(given()).row(0, 2)


def test_origins_that_only_another_process_has_made_are_one_here_too():
    sent = pickle.dumps(Origins((40, 41, 44)))
    first, second = pickle.loads(sent), pickle.loads(sent)
    assert first is second
    assert first.positions == (40, 41, 44)
    assert first.grown(1, 5, 2).positions == (41, 44, 3, 4)
