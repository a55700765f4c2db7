"""Tokens by number and contexts by their tokens: whatever is remembered, the same comes out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import TINY

from kvbench.replay import tokens as module
from kvbench.replay.content import Contents
from kvbench.replay.tokens import EMPTY_CONTEXT, Histories, Tokens

CONTENTS = Contents(TINY)


def many_tokens(count):
    tokens = Tokens(CONTENTS)
    numbers = tokens.add(range(1000, 1000 + count))
    return tokens, numbers


class TestTokens:
    def test_numbers_go_on_from_one(self):
        tokens = Tokens(CONTENTS)
        assert tokens.add([7, 7]).tolist() == [1, 2]
        assert tokens.add([8]).tolist() == [3]

    def test_contents_are_of_any_shape_and_zero_where_there_is_no_token(self):
        tokens, _ = many_tokens(3)
        found = tokens.contents(np.array([[0, 1], [3, 0]]))
        assert found.shape == (2, 2, CONTENTS.width)
        assert not found[0, 0].any()
        assert not found[1, 1].any()
        assert np.array_equal(found[1, 0], tokens.contents(np.array([3]))[0])

    def test_two_tokens_of_one_seed_differ(self):
        tokens = Tokens(CONTENTS)
        one, two = tokens.contents(tokens.add([7, 7]))
        assert not np.array_equal(one, two)

    def test_a_token_says_its_number(self):
        tokens, numbers = many_tokens(20_000)
        for part in (numbers[:9], numbers[-9:]):
            assert np.array_equal(tokens.numbers(tokens.contents(part)[:, : tokens.digits].astype(float)), part)

    @pytest.mark.parametrize("element", [np.nan, np.inf, -np.inf, 1e30, -1e30, 127.0, -128.0])
    def test_what_is_no_token_has_no_number(self, element):
        tokens, _ = many_tokens(5)
        assert tokens.numbers(np.full((1, tokens.digits), element)).tolist() == [0]

    def test_few_are_remembered_and_the_others_made_again(self):
        tokens, numbers = many_tokens(20_000)
        first = tokens.contents(numbers[:50])
        for start in range(0, len(numbers), 500):
            tokens.contents(numbers[start : start + 500])
        assert np.array_equal(tokens.contents(numbers[:50]), first)
        assert len(tokens._remembered) == module._REMEMBERED

    def test_more_at_once_than_are_remembered(self):
        tokens, numbers = many_tokens(20_000)
        some = tokens.contents(numbers[5000:5003])
        assert np.array_equal(tokens.contents(numbers)[5000:5003], some)
        assert len(np.unique(tokens.contents(numbers), axis=0)) == len(numbers)


class PlainHistories:
    """What ``Histories`` should be: every context's tokens in a list."""

    def __init__(self):
        self.all = [[]]

    def add(self, parent, appended, window):
        first, count = window
        self.all.append([*self.all[parent], *appended][first : first + count])


class TestHistories:
    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 2)), max_size=60), st.integers(1, 5))
    def test_tokens_of_a_context_are_its_parents_and_its_own(self, steps, remembered):
        histories, plain, last = Histories(), PlainHistories(), 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_REMEMBERED", remembered)
            for pick, count in steps:
                parent = pick % len(plain.all)
                appended = range(last + 1, last + 1 + count)
                last += count
                window = TINY.window(len(plain.all[parent]) + count)
                histories.add(parent, pick, pick + 1, list(appended), window)
                plain.add(parent, appended, window)
            for number, tokens in enumerate(plain.all):
                assert histories.tokens(number) == tokens
            assert histories.sizes_of(np.arange(len(plain.all))).tolist() == [len(each) for each in plain.all]
            assert len(histories._recent) <= remembered

    def test_a_context_is_known_by_its_last_token(self):
        histories = Histories()
        histories.add(EMPTY_CONTEXT, 70, 7, [1], (0, 1))
        histories.add(1, 80, 8, [2, 3], (0, 3))
        histories.add(2, 90, 9, [4, 5], (2, 2))  # the window's end is cut off: token 4 is the last
        assert histories.ending_with(np.array([0, 1, 2, 3, 4, 5, 10**6])).tolist() == [0, 1, 0, 2, 3, 0, 0]
        assert (histories.keys[3], histories.identities[3]) == (9, 90)
        histories.add(1, 91, 9, [6, 3], (0, 3))
        assert histories.ending_with(np.array([3])).tolist() == [4]  # the newest
