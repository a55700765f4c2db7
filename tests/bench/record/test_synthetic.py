"""Synthetic traces: the same on every machine, valid for every geometry, and shaped like searches."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from traces import TINY, steps_of, synthetic

from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.trace.reader import TraceReader
from kvcache.backend import Scope
from kvcache.geometry import GEOMETRIES

# sha256 of the events of: kvbench trace synthesize FILE --geometry cartpole --searches 2 --seed 0
GOLDEN_DIGEST = "7bf879c29480fd027d80d48a1292d13762898997cb7e5659ad622ecc6a289834"


def digest(path):
    return TraceReader(path).digest()


def test_the_golden_trace_is_made_on_every_machine(tmp_path):
    assert digest(synthetic(tmp_path / "trace", GEOMETRIES["cartpole"], searches=2, seed=0)) == GOLDEN_DIGEST


def test_the_seed_decides(tmp_path):
    one, same, other = (synthetic(tmp_path / name, seed=seed) for name, seed in (("1", 5), ("2", 5), ("3", 6)))
    assert digest(one) == digest(same) != digest(other)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_every_geometry_gives_a_valid_trace(tmp_path, geometry):
    geometry = replace(geometry, num_simulations=min(geometry.num_simulations, 10))
    path = synthetic(tmp_path / "trace", geometry, searches=3, episode_length=2, transpositions=0.2)
    reader = TraceReader(path)
    assert reader.check() == reader.rows
    steps = steps_of(path)
    assert sum(step.is_recurrent for step in steps) == 3 * geometry.num_simulations
    assert all(len(step.envs) == geometry.env_num for step in steps if step.is_recurrent)


@pytest.mark.parametrize("context_length", [3, 4, 5, 7])
def test_short_contexts_give_valid_traces(tmp_path, context_length):
    path = synthetic(tmp_path / "trace", replace(TINY, context_length=context_length), searches=4)
    assert TraceReader(path).check() > 0


def test_the_header_says_that_it_is_synthetic_and_how_to_make_it_again(tmp_path):
    header = TraceReader(synthetic(tmp_path / "trace", seed=3, num_actions=2, transpositions=0.5)).header
    assert header.synthetic
    assert header.backend is None
    assert header.pools == {}
    assert header.geometry == TINY
    assert header.source["trained"] is False
    again = {name: header.source[name] for name in ("searches", "seed", "num_actions", "transpositions")}
    assert digest(synthetic(tmp_path / "again", **again)) == digest(tmp_path / "trace")


def test_nothing_is_called_a_recorded_hit(tmp_path):
    assert all(hit is None for step in steps_of(synthetic(tmp_path / "trace")) for hit in step.recorded_hits)


def test_environments_finish_at_different_times(tmp_path):
    path = synthetic(tmp_path / "trace", replace(TINY, env_num=6, num_simulations=2), searches=30, episode_length=8)
    begun = {env: [] for env in range(6)}
    for step in steps_of(path):
        if step.scope is Scope.ROOT:
            for env, parent in zip(step.envs, step.parents, strict=True):
                if parent is None:
                    begun[env].append(step.search)
    assert all(starts[0] == 0 and len(starts) > 1 for starts in begun.values())
    assert len({tuple(starts) for starts in begun.values()}) > 3
    lengths = {second - first for starts in begun.values() for first, second in pairwise(starts)}
    assert min(lengths) >= 4
    assert max(lengths) <= 12
    assert len(lengths) > 2


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Nodes of each search and environment: (parent's row, own row, depth)."""
    geometry = replace(GEOMETRIES["cartpole"], num_simulations=40)
    path = synthetic(tmp_path_factory.mktemp("trees") / "trace", geometry, searches=2)
    trees = {}
    for step in steps_of(path):
        for env, node, store, depth in zip(step.envs, step.nodes, step.stores, step.depths, strict=True):
            if step.is_recurrent:
                trees.setdefault((step.search, env), []).append((node, store, depth))
    return trees


class TestTree:
    def test_every_simulation_adds_one_node_below_the_root(self, trees):
        assert len(trees) == 2 * 8
        assert {len(nodes) for nodes in trees.values()} == {40}
        for nodes in trees.values():
            depths = {nodes[0][0]: 0}
            for parent, store, depth in nodes:
                assert depth == depths[parent] + 1
                depths[store] = depth

    def test_it_is_neither_a_line_nor_a_star(self, trees):
        for nodes in trees.values():
            by_depth = Counter(depth for _, _, depth in nodes)
            assert len(by_depth) >= 3
            assert max(by_depth) < 40
            assert max(by_depth.values()) >= 3
            children = Counter(parent for parent, _, _ in nodes)
            assert 1 < max(children.values()) <= 4

    def test_trees_differ(self, trees):
        assert len({tuple(depth for _, _, depth in nodes) for nodes in trees.values()}) == len(trees)


def test_the_root_is_visited_once_a_simulation(tmp_path):
    search = SyntheticSearch(TINY, searches=2, seed=0)
    for _ in write_synthetic_trace(tmp_path / "trace", search):
        for environment in search._environments:
            root = environment.root
            assert root.visits == TINY.num_simulations
            assert sum(child.visits for child in root.children.values()) == TINY.num_simulations


def test_a_better_line_is_searched_more(tmp_path):
    """PUCT: after enough simulations visits follow values, not the order of actions."""
    geometry = replace(TINY, env_num=8, num_simulations=100)
    search = SyntheticSearch(geometry, searches=1, seed=1)
    for _ in write_synthetic_trace(tmp_path / "trace", search):
        pass
    favoured = Counter()
    for environment in search._environments:
        children = environment.root.children
        favoured[max(children, key=lambda action: children[action].visits)] += 1
        ranked = sorted(children.values(), key=lambda child: child.visits)
        assert ranked[-1].visits > 2 * ranked[0].visits
    assert len(favoured) > 1


def test_keys_are_distinct_without_transpositions(tmp_path):
    keys = [key for step in steps_of(synthetic(tmp_path / "trace", searches=4)) for key in step.keys]
    assert len(set(keys)) == len(keys)


def test_transpositions_repeat_keys_of_the_same_search_and_environment(tmp_path):
    stored = {}
    repeated = total = 0
    path = synthetic(tmp_path / "trace", replace(TINY, num_simulations=40), searches=3, transpositions=0.5)
    for step in steps_of(path):
        for env, key in zip(step.envs, step.keys, strict=True):
            if step.is_recurrent:
                total += 1
                repeated += key in stored.get((step.search, env), ())
                stored.setdefault((step.search, env), set()).add(key)
    assert 0.3 < repeated / total < 0.7
    assert sum(len(keys) for keys in stored.values()) == len(set().union(*stored.values())) == total - repeated


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"searches": 0}, "searches must be 1 or more"),
        ({"num_actions": 0}, "num_actions must be 1 or more"),
        ({"episode_length": 0}, "episode_length must be 1 or more"),
        ({"transpositions": 1.5}, "transpositions is a share between 0 and 1"),
        ({"geometry": replace(TINY, context_length=2)}, "context_length 2 stores nothing"),
    ],
)
def test_bad_settings_are_refused(options, fault):
    with pytest.raises(ValueError, match=fault):
        SyntheticSearch(**{"geometry": TINY, "searches": 1, "seed": 0, **options})


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "trace"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        synthetic(path)
    assert path.read_text() == "precious"


def test_init_caches_of_environments_whose_episode_ended_can_be_cleared(tmp_path):
    plain = synthetic(tmp_path / "plain", searches=6, episode_length=2)
    cleared = synthetic(tmp_path / "cleared", searches=6, episode_length=2, clear_ended=True)
    steps, header = steps_of(cleared), TraceReader(cleared).header
    assert header.source["clear_ended"] is True
    assert "clear_ended" not in TraceReader(plain).header.source
    ends = [step for step in steps if step.cleared_envs]
    assert ends
    for step in ends:  # the next root of these environments begins from nothing
        after = [each for each in steps if each.search == step.search + 1 and each.scope is Scope.ROOT]
        begun = [env for each in after for env, parent in zip(each.envs, each.parents, strict=True) if parent is None]
        assert step.cleared_envs == (begun or step.cleared_envs)
    for step in steps:
        step.cleared_envs = []

    def without_rows(steps):
        return [replace(step, nodes=[], stores=[]) for step in steps]

    assert without_rows(steps) == without_rows(steps_of(plain))  # clears are all that is new
