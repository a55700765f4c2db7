"""The smallest pool that is large enough: found by halving where larger pools have more hits, and told from a table."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import TINY, synthetic

from kvbench.capacity.answer import smallest_within
from kvbench.capacity.curves import ENTRIES, PAGES, Sized, count_lines
from kvbench.capacity.measure import Sizes, measure
from kvbench.capacity.requests import Requests
from kvbench.trace.reader import TraceReader

COLUMNS = ["policy", "unit", "size", "hit"]


def counter(hits_of, tried):
    """Counts the hits of made-up policies, and notes each size that is tried."""

    def count(lines):
        rows = [(each.policy, each.unit, size, hits_of(each.policy, size)) for each in lines for size in each.sizes]
        tried.extend(rows)
        return pd.DataFrame(rows, columns=COLUMNS)

    return count


@settings(max_examples=12)
@given(st.integers(1, 400), st.integers(1, 400), st.sets(st.integers(1, 400), max_size=6))
def test_the_smallest_of_all_sizes_is_found_to_a_hundredth(most, needed, grid):
    needed = min(needed, most)
    tried = []
    count = counter(lambda _, size: 100 if size >= needed else 98, tried)
    known = count(
        [Sized("fifo", ENTRIES, [*(size for size in grid if size <= most), most]), Sized("belady", ENTRIES, [1])]
    )
    (found,) = smallest_within(count, known, {ENTRIES: (1, most)}, 100, 0.99)
    assert needed <= found.size <= needed * 1.02
    assert found.hits == 100
    assert len(tried) < len(known) + 20


def test_each_policy_and_unit_has_its_own():
    enough = {"fifo": 40, "lru": 30}
    count = counter(lambda policy, size: 100 if size >= enough[policy] else 0, [])
    lines = [Sized(policy, unit, [64]) for policy in enough for unit in (ENTRIES, PAGES)]
    found = smallest_within(count, count(lines), {ENTRIES: (1, 64), PAGES: (35, 512)}, 100, 0.99)
    assert [(each.policy, each.unit, each.size) for each in found] == [
        ("fifo", ENTRIES, 40), ("fifo", PAGES, 40), ("lru", ENTRIES, 30), ("lru", PAGES, 35),
    ]  # fmt: skip


def test_a_pool_that_never_has_enough_below_the_most_needs_the_most():
    count = counter(lambda _, size: 100 * (size == 50), [])
    (found,) = smallest_within(count, count([Sized("fifo", ENTRIES, [3, 20])]), {ENTRIES: (1, 50)}, 100, 0.99)
    assert found.size == 50


def test_one_slot_may_do():
    count = counter(lambda _, size: 100, [])
    (found,) = smallest_within(count, count([Sized("fifo", ENTRIES, [3, 20])]), {ENTRIES: (1, 50)}, 100, 0.99)
    assert found.size == 1


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "tiny.parquet"
    return Requests(TraceReader(synthetic(path, searches=4, episode_length=8, transpositions=0.3)))


@pytest.mark.parametrize("pool", ["recur", "init"])
def test_it_is_what_every_size_says(requests, pool):
    sizes = Sizes(requests, pool, 4)
    most = sizes.most
    measured = measure(sizes, ["fifo", "legacy", "belady"], [1, most])
    unlimited = int(measured.unlimited["hit"].iloc[0])
    every = [Sized(policy, ENTRIES, list(range(1, most + 1))) for policy in ("fifo", "legacy")]
    every.append(Sized("fifo", PAGES, list(range(sizes.pages(1), sizes.pages(most) + 1))))
    table = count_lines(requests, TINY, every, pool, census=requests.census)
    enough = table[table["hit"] >= 0.99 * unlimited].groupby(["policy", "unit"])["size"].min()
    assert {(each.policy, each.unit): each.size for each in measured.smallest} == enough.to_dict()


def test_an_unlimited_pool_has_all_entries_and_no_more(requests):
    sizes = Sizes(requests, "recur", 4)
    measured = measure(sizes, ["fifo"], [1])
    most = sizes.most
    table = count_lines(requests, TINY, [Sized("fifo", ENTRIES, [most - 1, most, most + 1, 10 * most])])
    hits = table["hit"].tolist()
    assert hits[0] <= hits[1] == hits[2] == hits[3] == measured.unlimited["hit"].iloc[0]
    assert measured.unlimited["bytes"].tolist() == [most * TINY.entry_bytes()]


def test_pages_are_as_large_as_entries_together(requests):
    sizes = Sizes(requests, "init", 2)
    assert sizes.bytes_of(ENTRIES, 3) == 3 * TINY.env_num * TINY.entry_bytes(2) == sizes.bytes_of(PAGES, sizes.pages(3))
