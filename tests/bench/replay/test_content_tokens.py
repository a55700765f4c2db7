"""Tokens by number and contexts by their tokens: whatever is remembered, the same comes out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import TINY

from kvbench.replay import histories as histories_module
from kvbench.replay import tokens as module
from kvbench.replay.content import NO_CONTEXT, Contents, extend_context
from kvbench.replay.histories import Histories
from kvbench.replay.tokens import Tokens

CONTENTS = Contents(TINY)


def many_tokens(count):
    tokens = Tokens(CONTENTS)
    numbers = tokens.add(count)
    return tokens, numbers


class TestTokens:
    def test_numbers_go_on_from_one(self):
        tokens = Tokens(CONTENTS)
        assert tokens.add(2).tolist() == [1, 2]
        assert tokens.add(1).tolist() == [3]

    def test_contents_are_of_any_shape_and_zero_where_there_is_no_token(self):
        tokens, _ = many_tokens(3)
        found = tokens.contents(np.array([[0, 1], [3, 0]]))
        assert found.shape == (2, 2, CONTENTS.width)
        assert not found[0, 0].any()
        assert not found[1, 1].any()
        assert np.array_equal(found[1, 0], tokens.contents(np.array([3]))[0])

    def test_two_tokens_differ_beyond_their_numbers(self):
        tokens, numbers = many_tokens(1000)
        assert len(np.unique(tokens.contents(numbers)[:, tokens.digits :], axis=0)) == len(numbers)

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

    @settings(max_examples=60)
    @given(
        st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=30), min_size=5, max_size=40),
        st.sampled_from([8, 16, 64]),
    )
    def test_each_has_its_content_whatever_is_forgotten(self, asked, places):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_PLACES", 1024)
            plain, _ = many_tokens(200)
            patch.setattr(module, "_PLACES", places)
            patch.setattr(module, "_REMEMBERED", 20)
            tokens, _ = many_tokens(200)
            for numbers in asked:
                assert np.array_equal(tokens.contents(np.array(numbers)), plain.contents(np.array(numbers)))


class PlainHistories:
    """What ``Histories`` should be: every context's tokens in a list."""

    def __init__(self):
        self.all, self.entries = [[]], [(0, NO_CONTEXT)]

    def add(self, parent, key, appended):
        first, count = TINY.window(len(self.all[parent]) + len(appended))
        self.all.append([*self.all[parent], *appended][first : first + count])
        self.entries.append((key, extend_context(self.entries[parent][1], key)))


def add(histories, parents, keys, appended):
    """Rows of a batch: contexts and what they became."""
    parents = np.array(parents)
    numbers = histories.add(keys, histories.tokens(parents), histories.sizes_of(parents), np.array(appended))
    histories.trace(parents.tolist())
    return numbers.tolist()


class TestHistories:
    @settings(max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 2)), max_size=60), st.integers(1, 5))
    def test_tokens_of_a_context_are_its_parents_and_its_own(self, steps, remembered):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(histories_module, "_REMEMBERED", remembered)
            histories, plain, last = Histories(TINY), PlainHistories(), 0
            for pick, count in steps:
                parent = pick % len(plain.all)
                appended = list(range(last + 1, last + 1 + count))
                last += count
                add(histories, [parent], [pick], [appended + [0] * (2 - count)])
                plain.add(parent, pick, appended)
            numbers = np.arange(len(plain.all))
            found = [[token for token in tokens if token] for tokens in histories.tokens(numbers).tolist()]
            assert found == plain.all
            assert histories.sizes_of(numbers).tolist() == [len(each) for each in plain.all]
            assert list(zip(*(each.tolist() for each in histories.entries(numbers)), strict=True)) == plain.entries

    @settings(max_examples=80)
    @given(
        st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 2)), min_size=9, max_size=60),
        st.integers(1, 5),
        st.integers(1, 4),
        st.integers(0, 10**6),
    )
    def test_what_is_kept_is_as_it_was_and_nothing_else_is_known(self, steps, remembered, newest, seed):
        """Contexts are forgotten again and again; those that are kept are the parents of others, too."""
        random = np.random.default_rng(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(histories_module, "_REMEMBERED", remembered)
            patch.setattr(histories_module, "NEWEST", newest)
            histories, plain, last, alive = Histories(TINY), PlainHistories(), 0, [0]
            ends = {}
            for pick, count in steps:
                parent = alive[pick % len(alive)]
                appended = list(range(last + 1, last + 1 + count))
                last += count
                alive += add(histories, [parent], [pick], [appended + [0] * (2 - count)])
                plain.add(parent, pick, appended)
                ends[plain.all[-1][-1]] = alive[-1]
                if histories.are_many:
                    alive = [0, *(each for each in alive[1:] if random.random() < 0.5)]
                    histories.keep(alive[1:])
                    assert len(histories._sizes) == newest + 1
            assert len(histories) == len(plain.all)
            numbers = np.array(alive)
            found = [[token for token in tokens if token] for tokens in histories.tokens(numbers).tolist()]
            assert found == [plain.all[each] for each in alive]
            assert histories.sizes_of(numbers).tolist() == [len(plain.all[each]) for each in alive]
            entries = list(zip(*(each.tolist() for each in histories.entries(numbers)), strict=True))
            assert entries == [plain.entries[each] for each in alive]
            for end, context in ends.items():
                assert histories.ending_with(np.array([end])).tolist()[0] in {context, 0}
                if context in alive:
                    assert histories.ending_with(np.array([end])).tolist() == [context]

    def test_a_context_is_known_by_its_last_token(self):
        histories = Histories(TINY)
        assert histories.add_generated(7, 1) == 1
        assert add(histories, [1, 1], [8, 9], [[2, 3], [4, 5]]) == [2, 3]
        ends = np.array([0, 1, 2, 3, 4, 5, 10**6])
        assert histories.ending_with(ends).tolist() == [0, 1, 0, 2, 0, 3, 0]
        histories.forget(np.array([2]))
        assert histories.ending_with(ends).tolist() == [0, 1, 0, 0, 0, 3, 0]
