"""The first number in which two runs differ, of files that were written by hand."""

import copy

import pytest
from training_files import NOTES, write_notes

from kvbench.training.compare import compare


@pytest.fixture
def compared(tmp_path):
    def compare_with(other, first=NOTES, **options):
        return compare(write_notes(tmp_path / "first", first), write_notes(tmp_path / "other", other), **options)

    return compare_with


def changed(row, **values):
    notes = copy.deepcopy(NOTES)
    notes[row] |= values
    return notes


def test_the_same_numbers_a_nan_among_them(compared):
    found = compared(NOTES)
    assert found.first_difference is None
    assert found.largest_difference == 0


@pytest.mark.parametrize(
    ("row", "name", "value", "sentence"),
    [
        (0, "searched value", 0.5000001, "search 1, environment 0: searched value is 0.5000001, and 0.5 in the first"),
        (1, "visits", [2, 3], "search 2, environment 1: visits is [2, 3], and [3, 2] in the first"),
        (2, "return", 8.0, "episode 1: return is 8.0, and 7.0 in the first"),
        (4, "weighted_total_loss", 1.25, "learning step 2: weighted_total_loss is 1.25, and 1.5 in the first"),
        (5, "searched value", 0.5, "search 3, environment 0: searched value is 0.5, and nan in the first"),
        (5, "kind", "episode", "search 3: it has 'episode' there, an entry of another kind"),
        (3, "mine", 1.0, "learning step 1: other quantities are noted"),
    ],
)
def test_the_first_difference_by_kind(compared, row, name, value, sentence):
    assert compared(changed(row, **{name: value})).first_difference == sentence


def test_values_are_compared_as_long_as_actions_are_the_same(compared):
    notes = changed(0, **{"searched value": 0.75})
    notes[1] |= {"action": 0, "searched value": 100.0}
    found = compared(notes)
    assert found.largest_difference == 0.25
    assert "search 1, environment 0: searched value" in found.first_difference


def test_another_action_is_a_difference_like_any_other(compared):
    assert compared(changed(1, action=0)).first_difference == (
        "search 2, environment 1: action is 0, and 1 in the first"
    )


def test_one_run_is_longer(compared):
    shorter = NOTES[:4]
    reached = "search 2, episode 1, learning step 1"
    assert compared(shorter).first_difference == f"{reached}: it ends, and the first goes on"
    assert compared(NOTES, first=shorter).first_difference == f"{reached}: it goes on, and the first ends"
    assert compared(NOTES, first=[]).first_difference == "its beginning: it goes on, and the first ends"


def test_a_first_run_that_ended_early_is_compared_to_its_end(compared):
    shorter = NOTES[:4]
    assert compared(NOTES, first=shorter, until_first_ends=True).first_difference is None
    assert compared(shorter, until_first_ends=True).first_difference is not None
    assert compared(changed(3, **{"sum of weights": 0.0}), first=shorter, until_first_ends=True).first_difference
