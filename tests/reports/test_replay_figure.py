"""The picture shows the numbers of the JSON file it is made of."""

import json

import pytest
import replay_figure
from click.testing import CliRunner

from kvcache.cli import main
from kvcache.geometry import GEOMETRIES
from kvcache.trace.synthetic import SyntheticSearch, write_synthetic_trace


@pytest.fixture(scope="module", params=[1, 0], ids=["timed", "counted only"])
def result_file(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    list(write_synthetic_trace(folder / "trace.parquet", SyntheticSearch(GEOMETRIES["cartpole"], 1, 0)))
    arguments = [
        "replay", str(folder / "trace.parquet"), "--repetitions", str(request.param),
        "--capacity", "default", "--capacity", "recur=20", "--json", str(folder / "result.json"),
    ]  # fmt: skip
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return folder / "result.json"


def test_an_svg_with_the_numbers_as_text(result_file, tmp_path):
    replay_figure.main(result_file, tmp_path / "out" / "figure.svg")
    picture = (tmp_path / "out" / "figure.svg").read_text()
    result = json.loads(result_file.read_text())
    for backend in result["replays"][0]["backends"]:
        assert f"{backend['counts_per_recurrent_step_median']['tensor_ops']:.0f}" in picture
        if backend["latency_us"]:
            assert f"{backend['latency_us']['recurrent_step']['p50']:.0f} us" in picture
    assert "recur 20 slots" in picture


def test_the_same_result_gives_the_same_picture(result_file, tmp_path):
    for name in ("a.svg", "b.svg"):
        replay_figure.main(result_file, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
