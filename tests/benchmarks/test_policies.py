"""The table of eviction policies: what it measures, and what it answers."""

import policies
import pytest
from traces import TINY, steps_of, synthetic

from kvbench.capacity.curves import hit_rate_curves
from kvcache import Scope


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    return steps_of(synthetic(tmp_path_factory.mktemp("traces") / "small", searches=4))


@pytest.fixture(scope="module")
def table(steps):
    return policies.measure("small", TINY, steps)


def test_hits_are_those_of_the_curves_without_roots(steps, table):
    roots = sum(parent is not None for step in steps if step.scope is Scope.ROOT for parent in step.parents)
    most = TINY.env_num * TINY.num_simulations
    for policy in policies.STRATEGIES:
        (row,) = hit_rate_curves(steps, TINY, [most // 4], [policy]).to_dict("records")
        cell = table.query("policy == @policy and room == 'slots' and share == 4")["hits"].item()
        assert cell == pytest.approx(100 * (row["hit"] - roots) / (row["lookups"] - roots))


def test_no_policy_passes_the_bounds(table):
    wide = table.pivot(index=["room", "share"], columns="policy", values="hits")
    best = wide[list(policies.STRATEGIES)].max(axis=1)
    assert (best <= wide["strict"] + 1e-9).all()
    assert (wide["strict"] <= wide["belady"]).all()
    assert wide["strict"].min() < 100


def test_the_table_and_the_answers_are_markdown(table):
    lines = policies.markdown(table).splitlines()
    assert len(lines) == 2 + 3 * len(policies.SHARES)
    assert lines[2].startswith("| 1/16 of slots | ")
    assert "| 1/8 of own pages | 1 | " in policies.answers(table)
