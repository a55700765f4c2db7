"""A card's page in a report: its parts, what does not hold, and what it ran on."""

import pytest
from pages import Page

from kvbench.report import Inputs, build_report
from kvbench.results.decode import ResultsError, write_json
from kvbench.results.gpu import GpuPart, GpuResults, GpuRow


def results(**changes):
    content = {
        "date": "2026-11-26T09:00:00+00:00",
        "device": "cuda",
        "quick": False,
        "card": {"name": "Card <b>X</b>", "driver": "1.2"},
        "machine": {"torch_version": "2.13.0"},
        "parts": [
            GpuPart(name="contents", status="done", seconds=1.5),
            GpuPart(name="counts", status="failed", seconds=2, reason="RuntimeError: out of <memory>"),
        ],
        "rows": [
            GpuRow(part="contents", name="cartpole", value=0, unit="apart", wanted="at most 0", holds=True),
            GpuRow(part="counts", name="pong, to host", value=2, unit="a simulation", wanted="at most 1", holds=False),
            GpuRow(part="counts", name="wide", reason="no memory"),
        ],
    }
    return GpuResults(**content | changes)


def built(tmp_path, content):
    write_json(tmp_path / "gpu.json", content)
    build_report(Inputs(gpus=[tmp_path / "gpu.json"], repository=tmp_path), tmp_path / "html")
    (path,) = (tmp_path / "html").glob("gpu-*.html")
    return Page(path)


def test_a_card_has_a_page(tmp_path):
    page = built(tmp_path, results())
    text = " ".join(page.text.split())
    assert "GPU: Card <b>X</b>" in text
    assert "1 of 2 parts ended. 1 of 2 promises hold." in text
    assert [row["it"] for row in page.rows("gpu-how")] == ["done", "failed"]
    (broken,) = page.rows("gpu-broken")
    assert (broken["part"], broken["what"], broken["holds"]) == ("counts", "pong, to host", "no")
    assert {row["what"]: row["value"] for row in page.rows("gpu-card")}["driver"] == "1.2"


def test_a_trial_on_a_cpu_says_that_it_is_none(tmp_path):
    page = built(tmp_path, results(device="cpu", card={}, rows=[], parts=[]))
    assert "This is a trial of the parts on a CPU." in " ".join(page.text.split())
    assert "Broken promises" not in page.text


def test_another_file_is_refused(tmp_path):
    (tmp_path / "gpu.json").write_text('{"format": "kvcache-replay"}')
    with pytest.raises(ResultsError, match="give what 'tox -e gpu' wrote"):
        build_report(Inputs(gpus=[tmp_path / "gpu.json"], repository=tmp_path), tmp_path / "html")
