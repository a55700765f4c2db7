"""Texts and numbers as pages show them."""

import math

import pytest

from kvbench.report.text import clean, file_name, number
from kvbench.text import seconds_of


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), (math.nan, "-"), (0, "0"), (5, "5"), (1234567.0, "1,234,567"), (2.0, "2"), (3.14159, "3.142"),
        (99.99999, "100"), (12345.6, "12,346"), (0.00012345, "0.0001234"), (1.2e-7, "0.00000012"), (-2.5, "-2.5"),
    ],
)  # fmt: skip
def test_numbers_for_people(value, shown):
    assert number(value) == shown


def test_what_cannot_be_shown_is_marked_and_the_rest_stays():
    hostile = "a\x00b\x1b[31m\ud800<script>\N{RIGHT-TO-LEFT OVERRIDE}\N{SNOWMAN}é"
    assert clean(hostile) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}" + (
        "<script>\N{REPLACEMENT CHARACTER}\N{SNOWMAN}é"
    )
    assert clean({"k\x00": ["v\x00", 1, None]}) == {
        "k\N{REPLACEMENT CHARACTER}": ["v\N{REPLACEMENT CHARACTER}", 1, None]
    }


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c", "", "x" * 500, "\ud800", "<script>"], ids=range(6))
def test_file_names_are_plain_and_short(name):
    made = file_name(name)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 0 < len(made) < 100


def test_file_names_tell_what_differs_apart():
    names = [file_name("a", "b"), file_name("a-b"), file_name("A", "b"), file_name("a", "b", beside="c")]
    assert len(set(names)) == len(names)
    assert file_name("a", "b") == names[0]


def test_units_of_time():
    assert seconds_of("us") == 1e-6
    assert seconds_of("bytes") is None
