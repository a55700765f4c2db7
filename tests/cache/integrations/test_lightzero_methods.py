"""LightZero 0.2.0's own methods, driven like a backend: the contexts of every fill, token by token."""

import pytest

pytest.importorskip("lzero", reason="LightZero is not installed: tox -e lightzero")

import fill
import fill_runs
from lightzero_driver import is_main

from kvbench.record.fills import FILLS
from kvcache import GEOMETRIES, Geometry

pytestmark = pytest.mark.skipif(is_main(), reason="these are the methods of LightZero 0.2.0")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(fill_runs, "SIMULATIONS", 4)


@pytest.mark.parametrize("positions", ["rotary", "absolute"])
@pytest.mark.parametrize("each", FILLS)
def test_its_contents_are_those_that_every_backend_returns(each, positions):
    geometry = Geometry("small", 2, 2, 16, 14, 3, 4, positions)
    lookups, faults = fill_runs.verify(geometry, each, fill_runs.LIGHTZERO, seed=0, searches=2)
    assert (lookups > 20, faults) == (True, [])


def test_the_table_says_that_it_is_lightzeros_own(capsys, monkeypatch):
    monkeypatch.setitem(GEOMETRIES, "cartpole", Geometry("cartpole", 1, 2, 16, 8, 2, 4, "rotary"))
    fill.main(
        ["--against", "lightzero", "--geometry", "cartpole", "--fill", "sliding", "--seeds", "0", "--searches", "1"]
    )
    output = capsys.readouterr().out
    assert "against LightZero 0.2.0's own methods" in output
    assert "| cartpole | sliding | 5 |" in output
