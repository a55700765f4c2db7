"""The search as it ran, from a trace."""

from collections import Counter

import pytest
from replay_files import COMMITTED, steps_of, synthetic

from kvbench.report.search_shape import NO_NODE, SearchShape
from kvbench.report.searches import read_searches
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceError
from kvbench.trace.steps import TraceSteps
from kvcache.backend import Scope


@pytest.fixture(scope="module")
def searches():
    return read_searches(COMMITTED, 3)


@pytest.fixture(scope="module")
def steps():
    return steps_of(COMMITTED, 3)


def test_nodes_are_counted_by_simulation(searches, steps):
    assert searches.searches == 3
    stored = Counter(step.simulation for step in steps if step.is_recurrent for _ in step.stores)
    depths = searches.shape.depths().set_index("simulation")
    assert depths["count"].to_dict() == stored
    assert depths.loc[0].tolist() == [1, 1, 1, stored[0]]  # the first simulation: one step below the root
    assert depths["max"].max() == max(depth for step in steps for depth in step.depths)
    last = [depth for step in steps if step.simulation == 24 for depth in step.depths]
    assert depths.loc[24, "mean"] == sum(last) / len(last)


def test_a_fifo_pool_finds_what_its_reuse_distance_says(searches, steps):
    """A lookup with fewer stores in between than there are slots is found by a queue of so many."""
    slots = 50
    queue, found = [], 0
    for step in steps:
        if step.scope is Scope.NODE:
            found += sum(node in queue for node in step.nodes)
            queue = [*queue, *step.stores][-slots:]
    assert found == sum(lookups for stores, lookups in searches.shape.reuse.items() if stores < slots) > 0


def test_children_and_what_was_never_asked_for(searches, steps):
    extended = Counter(node for step in steps if step.is_recurrent for node in step.nodes)
    stores = [store for step in steps for store in step.stores]
    assert searches.shape.extended == Counter(extended[store] for store in stores)
    recurrent = [store for step in steps if step.is_recurrent for store in step.stores]
    assert searches.shape.never_asked == sum(not extended[store] for store in recurrent)


def test_no_more_nodes_are_held_than_a_lookup_may_mean(tmp_path):
    path = synthetic(tmp_path / "trace.parquet", searches=12)
    shape, held = SearchShape(TraceSteps(TraceReader(path)).reach), []
    for step in steps_of(path):
        shape.add(step)
        held.append(len(shape._nodes))
    assert max(held) <= 2 * max(held[: len(held) // 6])  # two searches of twelve
    shape.end()
    assert not shape._nodes


def test_the_tree_is_one(searches):
    tree = searches.tree()
    assert len(tree) == 26  # the root and a node of each simulation
    assert tree["parent"].iloc[0] == NO_NODE
    below = tree.iloc[1:]
    parents = tree.loc[below["parent"]]
    assert (below["parent"] < below.index).all()
    assert (below["depth"].to_numpy() == parents["depth"].to_numpy() + 1).all()
    assert (below["simulation"].to_numpy() > parents["simulation"].to_numpy()).all()


def test_all_of_a_trace(tmp_path):
    found = read_searches(synthetic(tmp_path / "trace.parquet", searches=2))
    assert found.searches == 2
    assert found.future.lookups > 0


def test_a_bad_trace_is_refused(tmp_path):
    (tmp_path / "trace.parquet").write_text("no trace")
    with pytest.raises(TraceError, match="not a Parquet file"):
        read_searches(tmp_path / "trace.parquet")
