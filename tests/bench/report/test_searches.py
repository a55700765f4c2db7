"""The search as it ran, from a trace."""

from collections import Counter

import pytest
from replay_files import COMMITTED, steps_of, synthetic

from kvbench.report.searches import read_searches
from kvbench.trace.schema import TraceError
from kvcache.backend import Scope


@pytest.fixture(scope="module")
def searches():
    return read_searches(COMMITTED, "digest", 3)


@pytest.fixture(scope="module")
def steps():
    return steps_of(COMMITTED, 3)


def test_nodes_are_counted_by_simulation(searches, steps):
    assert searches.searches == 3
    stored = Counter(step.simulation for step in steps if step.is_recurrent for _ in step.stores)
    assert {each: counts.total() for each, counts in searches.depth_by_simulation.items()} == stored
    assert set(searches.depth_by_simulation[0]) == {1}  # the first simulation goes one step below the root
    deepest = max(max(counts) for counts in searches.depth_by_simulation.values())
    assert deepest == max(depth for step in steps for depth in step.depths)


def test_a_fifo_pool_finds_what_its_reuse_distance_says(searches, steps):
    """A lookup with fewer stores in between than there are slots is found by a queue of so many."""
    slots = 50
    queue, found = [], 0
    for step in steps:
        if step.scope is Scope.NODE:
            found += sum(node in queue for node in step.nodes)
            queue = [*queue, *step.stores][-slots:]
    assert found == sum(count for distance, count in searches.reuse.items() if distance < slots) > 0


def test_children_and_what_was_never_asked_for(searches, steps):
    extended = Counter(node for step in steps if step.is_recurrent for node in step.nodes)
    stores = [store for step in steps for store in step.stores]
    assert searches.children == Counter(extended[store] for store in stores)
    recurrent = [store for step in steps if step.is_recurrent for store in step.stores]
    assert searches.never_asked == sum(not extended[store] for store in recurrent)


def test_the_tree_is_one(searches):
    tree = searches.tree
    assert len(tree.depths) == 26  # the root and a node of each simulation
    assert tree.parents[0] is None
    for place in range(1, len(tree.depths)):
        parent = tree.parents[place]
        assert parent < place
        assert tree.depths[place] == tree.depths[parent] + 1
        assert tree.simulations[place] > tree.simulations[parent]


def test_all_of_a_trace(tmp_path):
    found = read_searches(synthetic(tmp_path / "trace.parquet", searches=2), "digest")
    assert found.searches == 2
    assert found.future.lookups > 0


def test_a_bad_trace_is_refused(tmp_path):
    (tmp_path / "trace.parquet").write_text("no trace")
    with pytest.raises(TraceError, match="not a Parquet file"):
        read_searches(tmp_path / "trace.parquet", "digest")
