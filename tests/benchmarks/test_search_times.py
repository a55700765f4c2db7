"""``benchmarks/search_times.py``: both sides search the same, and its table says how they compare."""

import pytest
from search_times import ROOT, lines, measure


@pytest.mark.slow
def test_two_sides_of_one_library_find_the_same():
    found = measure({"base": ROOT, "head": ROOT}, "cartpole", searches=2, processes=1)
    base, head, ratio = lines("cartpole", found)
    assert [row["visits"] for row in found["base"]] == [row["visits"] for row in found["head"]]
    assert base.startswith("| cartpole | base | ")
    assert head.startswith("| cartpole | head | ")
    assert ratio.endswith("| 2 of 2 |")


def test_the_table_has_medians_of_parts_and_of_ratios_of_pairs():
    def searches(*factors, visits=((0,),)):
        parts = {"forward": 1.0, "cache": 0.5, "tree": 0.25, "rest": 0.25}
        return [
            {"seconds": {name: factor * each for name, each in parts.items()}, "visits": visits} for factor in factors
        ]

    found = {"base": searches(2, 4, 6), "head": [*searches(1, 1), *searches(2, visits=((1,),))]}
    assert lines("pong", found) == [
        "| pong | base | 8000.00 | 4000.00 | 2000.00 | 1000.00 | 1000.00 | |",
        "| pong | head | 2000.00 | 1000.00 | 500.00 | 250.00 | 250.00 | |",
        "| | base / head | 3.00 (2.50 to 3.50) | | | | | 2 of 3 |",
    ]
    assert len(lines("pong", {"head": searches(1)})) == 1
