"""Signs of comparisons."""

import pytest

from kvbench.judge.verdict import Verdict, sign_of_time


@pytest.mark.parametrize(
    ("faster", "quartiles", "sign"),
    [
        (2.0, (1.5, 2.5), 1),
        (0.5, (0.4, 0.6), -1),
        (2.0, (0.9, 2.5), 0),
        (1.001, (1.0005, 1.002), 0),
        (None, (1.5, 2.5), 0),
        (2.0, None, 0),
        (0.0, (1.5, 2.5), 0),
        (-4.6e18, (2.0, 1e308), 0),  # no ratio of times: a file may hold anything
    ],
)
def test_the_sign_of_a_time(faster, quartiles, sign):
    assert sign_of_time(faster, quartiles) == sign


def test_files_of_2026_have_another_word_for_not_decided():
    assert Verdict("inconclusive") is Verdict.NOT_DECIDED
    with pytest.raises(ValueError, match="is not a valid"):
        Verdict("conclusive")
