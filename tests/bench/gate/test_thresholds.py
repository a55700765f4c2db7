"""Thresholds files: what they may hold, what they mean, and errors that name file and place."""

from dataclasses import fields
from pathlib import Path

import pytest

from kvbench.gate.thresholds import TIME, Limit, Meant, Thresholds, ThresholdsError
from kvbench.measure.counters import Counts
from kvbench.replay.outcomes import Outcome

COMMITTED = Path(__file__).parents[3] / "benchmarks" / "gates" / "thresholds.toml"

GOOD = """
[time]
direction = "lower"
relative = 0.05
absolute = 1

[metrics]
hits = { direction = "higher", relative = 0.5 }
copies = { direction = "none" }

[[meant]]
benchmark = "test_operation[new:*-store]"
metric = "time"
relative = 0.2
why = "it checks more"
"""
TIMES = '[time]\ndirection = "lower"\n'


def parse(text):
    return Thresholds.parse(text, "limits.toml")


def test_what_a_file_may_hold():
    assert parse(GOOD) == Thresholds(
        Limit("lower", relative=0.05, absolute=1),
        {"hits": Limit("higher", relative=0.5), "copies": Limit("none")},
        (Meant("time", "it checks more", "test_operation[new:*-store]", relative=0.2),),
    )


def test_what_is_left_out_is_no_room_no_metric_and_every_benchmark():
    assert parse(TIMES) == Thresholds(Limit("lower", relative=0.0, absolute=0.0), {}, ())
    (meant,) = parse(TIMES + '[[meant]]\nmetric = "time"\nwhy = "so"').meant
    assert (meant.benchmark, meant.relative, meant.absolute) == ("*", 0.0, 0.0)


@pytest.mark.parametrize("direction", ["lower", "higher", "none"])
def test_directions(direction):
    assert parse(f'{TIMES}[metrics]\nhits.direction = "{direction}"').metrics["hits"].direction == direction


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[time", "limits.toml: not TOML: "),
        ("", "limits.toml: Object missing required field `time`"),
        (f"{TIMES}[metric]", "limits.toml: Object contains unknown field `metric`"),
        (f"metrics = 3\n{TIMES}", "limits.toml: Expected `object`, got `int` - at `$.metrics`"),
        (f"{TIMES}[meant]\n", "limits.toml: Expected `array`, got `object` - at `$.meant`"),
        ("time = 3", "limits.toml: [time]: Expected `object`, got `int`"),
        ("[time]", "limits.toml: [time]: Object missing required field `direction`"),
        (f"{TIMES}relativ = 0.1", "limits.toml: [time]: Object contains unknown field `relativ`"),
        ("[time]\ndirection = 3", "limits.toml: [time]: Expected `str`, got `int` - at `$.direction`"),
        ('[time]\ndirection = "none"', "limits.toml: [time]: direction can only be 'lower', got 'none'"),
        ('[time]\ndirection = "up"', "limits.toml: [time]: direction must be one of lower, higher, none, got 'up'"),
        (f"{TIMES}relative = -0.1", "limits.toml: [time]: relative must be a number from 0 up, got -0.1"),
        (f"{TIMES}relative = true", "limits.toml: [time]: Expected `float`, got `bool` - at `$.relative`"),
        (f"{TIMES}absolute = nan", "limits.toml: [time]: absolute must be a number from 0 up, got nan"),
        (f"{TIMES}absolute = inf", "limits.toml: [time]: absolute must be a number from 0 up, got inf"),
        (f'{TIMES}absolute = "5 %"', "limits.toml: [time]: Expected `float`, got `str` - at `$.absolute`"),
        (f'{TIMES}[metrics]\nhits = "up"', "limits.toml: metric 'hits': Expected `object`, got `str`"),
        (f"{TIMES}[metrics.hits]", "limits.toml: metric 'hits': Object missing required field `direction`"),
        (f"meant = [3]\n{TIMES}", "limits.toml: [[meant]] 1: Expected `object`, got `int`"),
        (f'{TIMES}[[meant]]\nmetric = "time"', "limits.toml: [[meant]] 1: Object missing required field `why`"),
        (
            f'{GOOD}[[meant]]\nmetric = "heat"\nwhy = "so"',
            "limits.toml: [[meant]] 2: there is no metric 'heat': choose one of [",
        ),
        (
            f'{GOOD}[[meant]]\nmetric = "hits"\nwhy = ""\nchange = "loss"',
            "limits.toml: [[meant]] 2: change must be one of value, limit, gone, got 'loss'",
        ),
        (f'{GOOD}[[meant]]\nmetric = "*"\nwhy = ""', "limits.toml: [[meant]] 2: there is no metric '*': "),
        (
            f'{GOOD}[[meant]]\nmetric = "hits"\nwhy = ""\nbenchmark = 1',
            "limits.toml: [[meant]] 2: Expected `str`, got `int` - at `$.benchmark`",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_name_the_place_and_what_is_allowed(text, fault):
    with pytest.raises(ThresholdsError) as caught:
        parse(text)
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize(
    ("relative", "absolute", "base", "room"),
    [(0, 0, 100, 0), (0.1, 0, 100, 10), (0.1, 0, -100, 10), (0.1, 20, 100, 20), (0.1, 5, 100, 10), (0.1, 5, 0, 5)],
)
def test_the_larger_of_both_limits_is_the_room(relative, absolute, base, room):
    assert Limit("lower", relative=relative, absolute=absolute).room(base) == pytest.approx(room)


@pytest.mark.parametrize(
    ("pattern", "name", "covered"),
    [
        ("*", "test_operation[new:private-cartpole-store]", True),
        ("test_operation[new:*-store]", "test_operation[new:private-cartpole-store]", True),
        ("test_operation[new:*-store]", "test_operation[new:private-cartpole-slide]", False),
        ("test_operation[new:*-store]", "test_operation[legacy-cartpole-store]", False),
        ("test_operation[new:*-store]", "test_operation[new:private-cartpole-store]-more", False),
        ("test_operation[new:private-pong-store]", "test_operation[new:private-pong-store]", True),
        ("test_operation[new:private-pong-store]", "test_operationn", False),
        ("test_operation[*", "test_operation[new:private-pong-store]", True),
        ("*[legacy-?]", "test_replay[legacy-a]", True),
        ("*[legacy-?]", "test_replay[legacy-ab]", False),
        ("TEST_*", "test_replay[legacy-a]", False),
    ],
)
def test_brackets_of_a_pattern_are_brackets_of_a_name(pattern, name, covered):
    meant = Meant("copies", "so", pattern)
    assert meant.covers(name, "copies") is covered
    assert not meant.covers(name, TIME)


@pytest.mark.parametrize(
    ("relative", "absolute", "head", "allowed"),
    [
        (0.5, 0, 150, True), (0.5, 0, 151, False), (0.5, 0, 50, True), (0.5, 0, 49, False),
        (0, 2, 102, True), (0, 2, 97, False), (0, 0, 101, False), (0.01, 5, 105, True),
    ],
)  # fmt: skip
def test_what_is_meant_holds_in_both_directions_and_no_further(relative, absolute, head, allowed):
    assert (Meant("copies", "so", relative=relative, absolute=absolute).room(100) >= abs(head - 100)) is allowed


def test_every_metric_of_the_gates_has_a_direction():
    outcomes = {*(each.value.replace(" ", "_") for each in Outcome), "evictions"}
    counters = {*(each.name for each in fields(Counts)), "bytes_reserved"}
    limits = Thresholds.parse(COMMITTED.read_text(), str(COMMITTED))
    assert {limits.limit_of(each) for each in counters} == {Limit("lower")}
    both = outcomes | {f"{each}_in_small_pool" for each in outcomes}
    assert {limits.limit_of(each) for each in both} == {Limit("none")}
    assert limits.limit_of("copies") is None
    assert limits.limit_of("recurrent_step") is None  # a time


def test_a_limit_needs_no_direction_where_the_metric_has_one():
    limits = parse(f"{TIMES}[metrics]\nbytes_copied.relative = 0.5\nhit_in_small_pool.absolute = 1")
    assert limits.limit_of("bytes_copied") == Limit("lower", relative=0.5)
    assert limits.limit_of("hit_in_small_pool") == Limit("none", relative=0.0, absolute=1)
    assert limits.limit_of("hit") == Limit("none")
