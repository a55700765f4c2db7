"""What LightZero's adapters hand over to a cache whose policy uses it. LightZero itself is not needed."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from kvcache import Scope, SearchInfo
from kvcache.integrations.lightzero import methods


class Backend:
    def __init__(self, wants_info):
        self.wants_info, self.stored = wants_info, []

    def exclusive(self):
        return nullcontext()

    def store(self, *args):
        self.stored.append(args)


def model_of(continuous=False):
    return SimpleNamespace(continuous_action_space=continuous, config=SimpleNamespace(action_space_size=6))


def infer(attachment, model, *args, **kwargs):
    """A recurrent inference that stores two rows."""

    def original(*_, **__):
        methods.store(attachment, model, [0, 1], [7, 8], Scope.NODE)
        return "result"

    return methods.WHOLE["forward_recurrent_inference"](attachment, model, original, *args, **kwargs)


@pytest.mark.parametrize("named", [False, True])
def test_depths_are_those_of_lightzeros_search(named):
    attachment = SimpleNamespace(backend=Backend(True), depths=())
    given = ({"search_depth": [1, 3]}, ()) if named else ({}, ([1, 3],))
    assert infer(attachment, model_of(), "history", 4, *given[1], **given[0]) == "result"
    assert attachment.backend.stored == [([0, 1], [7, 8], Scope.NODE, None, SearchInfo([1, 3], actions=6))]


def test_roots_are_at_depth_0_and_continuous_actions_are_not_counted():
    attachment = SimpleNamespace(backend=Backend(True), depths=[5, 5])
    methods.store(attachment, model_of(continuous=True), [0, 1], [7, 8], Scope.ROOT)
    assert attachment.backend.stored == [([0, 1], [7, 8], Scope.ROOT, None, SearchInfo([0, 0]))]


def test_depths_that_are_not_one_for_each_row_are_not_known():
    attachment = SimpleNamespace(backend=Backend(True), depths=())
    infer(attachment, model_of(), "history")
    assert attachment.backend.stored[0][-1] == SearchInfo(actions=6)


def test_a_cache_that_does_not_ask_gets_the_three_arguments_alone():
    attachment = SimpleNamespace(backend=Backend(False), depths=())
    infer(attachment, model_of(), "history", 0, [1, 1])
    assert attachment.backend.stored == [([0, 1], [7, 8], Scope.NODE)]
