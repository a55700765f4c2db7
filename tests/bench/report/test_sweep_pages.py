"""``kvbench report --sweep``: a page of the frame."""

import re

import pandas as pd
import pytest
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.report import sweeps
from kvbench.results.sweep import SCHEMA, write_cell

ROW = {
    "trace": "a.parquet", "trace_sha256": "ab", "backend": "new", "storage": "slab", "capacity": "recur=1/8",
    "eviction": "fifo", "dtype": "float32", "device": "cpu", "library": "source 1", "status": "done", "lookups": 8,
    "hit": 5, "stale_hit": 0, "context_mismatch": 1, "miss": 2, "wrong_content": 0, "init_evictions": 1,
    "recur_evictions": 2, "init_bytes_reserved": 100, "recur_bytes_reserved": 50, "wm_bytes_reserved": 0,
    "batch_bytes_reserved": 6, "replayed_searches": 3, "legacy_over_backend": 2.5, "host": "h", "machine": "a CPU",
}  # fmt: skip


def page(folder, rows):
    """The text of the sweep's page."""
    for number, row in enumerate(rows):
        write_cell(folder / "out" / f"{number}.parquet", ROW | {"cell": str(number)} | row)
    arguments = ["report", "--sweep", folder / "out", "--output", folder / "pages", "--repository", folder]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    (file,) = (folder / "pages").glob("sweep-out-*.html")
    text = re.sub(r"<(script|style).*?</\1>", "", file.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split()), result


def test_cells_stand_side_by_side_and_failures_have_reasons(tmp_path):
    rows = [
        {}, {"backend": "legacy", "storage": None, "eviction": None, "legacy_over_backend": None, "stale_hit": 2},
        {"status": "failed", "reason": "<b>no</b> room", "hit": None}, {"trace": "b.parquet", "trace_sha256": "cd"},
    ]  # fmt: skip
    text, _ = page(tmp_path, rows)
    assert "4 cells: 3 done, 1 failed." in text
    assert "new:slab recur=1/8 fifo 62.5 0 12.5 25 3 156 2.5" in text
    assert "legacy recur=1/8 - 62.5 25 12.5 25 3 156 -" in text
    assert "Cells of b.parquet" in text
    assert "&lt;b&gt;no&lt;/b&gt; room" in text
    assert "3 h a CPU" in text


def test_cells_of_a_cache_go_from_small_pools_to_large_ones(tmp_path):
    sizes = {"recur=100": 100, "recur=1/4": 50, "default": None, "recur=25": 25}
    text, _ = page(tmp_path, [{"capacity": each, "recur_slots": slots} for each, slots in sizes.items()])
    places = [text.index(f"new:slab {each} ") for each in ("default", "recur=25", "recur=1/4", "recur=100")]
    assert places == sorted(places)


def test_the_data_has_every_column_and_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "_MOST", 3)
    text, _ = page(tmp_path, [{"capacity": str(number)} for number in range(1, 6)])
    assert "The first 3 of 5 are shown" in text
    (data,) = (tmp_path / "pages" / "data").glob("sweep-out-a-*.csv")
    frame = pd.read_csv(data)
    assert list(frame.columns) == SCHEMA.names
    assert len(frame) == 5


def test_what_is_no_cell_is_left_out_and_said(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bad.parquet").write_text("no cell")
    _, result = page(tmp_path, [{}])
    assert "1 result left out: " in result.stderr
    assert "bad.parquet: cannot be read" in result.stderr


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_without_cells_is_one_line(tmp_path, name):
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(main, ["report", "--sweep", str(tmp_path / name), "--output", str(tmp_path / "pages")])
    assert result.exit_code == 1
    assert f"{name}: " in result.stderr
    assert "give what 'kvbench sweep' wrote" in result.stderr
