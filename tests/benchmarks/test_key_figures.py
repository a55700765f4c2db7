"""The figures of keys: they measure what they say."""

import re
from pathlib import Path

import key_figures
import pytest

TRACE = Path(__file__).resolve().parents[2] / "benchmarks/traces/cartpole-early-lightzero-0.2.0-seed0.parquet"


def test_chained_keys_make_a_recorded_mismatch_a_hit(capsys):
    key_figures.main(["traces", "--searches", "1", "--trace", str(TRACE)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[2] for row in rows] == ["latents'", "chained"] * 2
    assert float(rows[0][5]) > 50
    assert rows[1][3:] == ["100.00", "0.00", "0.00"]


def test_every_way_to_make_keys_is_timed(capsys):
    key_figures.main(["cost", "--geometry", "cartpole", "--steps", "20"])
    assert re.findall("cartpole, (.*?): ", capsys.readouterr().out) == [*key_figures.WAYS, "plain again"]


def test_searches_find_the_same(capsys):
    key_figures.main(["searches", "--geometry", "cartpole", "--searches", "2"])
    assert "cartpole: 2 of 2 searches with the same visits" in capsys.readouterr().out


def test_an_unknown_figure_is_refused():
    with pytest.raises(SystemExit):
        key_figures.main(["speed"])
