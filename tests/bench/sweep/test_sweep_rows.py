"""A sweep's rows: what a replay counts, in documented columns, read as one frame."""

import os
import random
import re
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sweep_plans import cells_in

from kvbench.errors import KvbenchError
from kvbench.replay.passes import Replay
from kvbench.replay.settings import cache_config, read_replayed
from kvbench.replay.summary import summarise
from kvbench.results.decode import LeftOut, ResultsError
from kvbench.results.sweep import COLUMNS, SCHEMA, read_cell, read_sweep, write_cell
from kvbench.sweep import measure, worker
from kvbench.sweep.libraries import digest_of
from kvbench.sweep.worker import Software, Task, introduce, run_task
from kvbench.trace.reader import TraceReader

DOCS = Path(__file__).parents[3] / "docs" / "sweeps.md"


def run(cell, place, **task):
    """Compute a cell as a worker does; its row."""
    (place / "scratch").mkdir(exist_ok=True)
    return run_task(Task(cell, 1, **{"folder": None} | task), str(place / "scratch"), "here")


def test_a_row_is_what_a_replay_counts(place):
    for cell in cells_in(place)[::3]:
        row = run(cell, place)
        reader = TraceReader(place / "tiny.parquet")
        replay = Replay(
            read_replayed(reader, cell.settings),
            cache_config(reader, cell.capacity, "cpu", cell.settings),
            [cell.cache],
        )
        numbers = summarise(replay.run(0)[cell.cache])
        assert row["status"] == "done", row
        for scope, prefix in (("total", ""), ("root", "root_"), ("node", "node_")):
            for name in ("lookups", "hit", "stale_hit", "context_mismatch", "miss", "wrong_content"):
                assert row[prefix + name] == numbers["outcomes"][scope][name]
        assert {pool: row[f"{pool}_bytes_reserved"] for pool in numbers["bytes_reserved"]} == numbers["bytes_reserved"]
        assert {pool: row[f"{pool}_evictions"] for pool in numbers["evictions"]} == numbers["evictions"]
        counts = numbers["counts_per_recurrent_step_median"]
        assert {name: row[f"step_{name}"] for name in counts} == counts
        assert set(row) <= set(SCHEMA.names)


def test_every_column_has_a_value_somewhere_and_exact_ones_are_the_same_again(place):
    cells = cells_in(
        place, 'trace = "tiny.parquet"\ncapacity = ["1/2", "recur=1/2B,init=1/2B"]\nsearches = 2\ncounted_searches = 1'
    )
    rows = [run(cell, place) for cell in cells]
    rows.append(measure.failed_row(cells[0], "a reason"))
    frame = pd.DataFrame(rows, columns=SCHEMA.names)
    timed = {each.name for each in COLUMNS if "legacy_over" in each.name or "step_us" in each.name}
    assert set(frame.columns[frame.isna().all()]) == timed | {"storage"}
    again = [run(cell, place) for cell in cells]
    exact = [each.name for each in COLUMNS if each.exact]
    for first, second in zip(rows, again, strict=False):
        assert {name: first.get(name) for name in exact} == {name: second.get(name) for name in exact}


def test_times_are_taken_beside_legacy_in_a_process_of_their_own(place, monkeypatch):
    legacy, new = cells_in(place, 'trace = "tiny.parquet"\nrepetitions = 1')
    asked = []
    monkeypatch.setattr(
        worker,
        "_in_own_process",
        lambda cell, *others: asked.append(cell) or measure.measure(cell, place / "tiny.parquet"),
    )
    assert not legacy.is_timed
    assert run(legacy, place).get("legacy_over_backend") is None
    row = run(new, place)
    assert asked == [new]
    assert row["legacy_over_backend"] > 0
    assert row["legacy_over_backend_p25"] <= row["legacy_over_backend"] <= row["legacy_over_backend_p75"]
    assert row["step_us_p50"] > 0 < row["legacy_step_us_p50"]


def test_a_failure_is_a_row_with_its_reason(place, monkeypatch):
    cell = cells_in(place)[0]
    for error, reason in (
        (KvbenchError("too little memory"), "too little memory"),
        (RuntimeError("a fault\nwith a second line"), "RuntimeError: a fault"),
        (MemoryError(), "MemoryError: "),
    ):

        def stop(*arguments, error=error):
            raise error

        monkeypatch.setattr(measure, "measure", stop)
        row = run(cell, place)
        assert (row["status"], row["reason"], row["cell"]) == ("failed", reason, cell.id)
        assert row.get("hit") is None


def test_wrong_content_fails_the_cell(place, monkeypatch):
    def damaged(report):
        numbers = summarise(report)
        return numbers | {"outcomes": numbers["outcomes"] | {"faults": ["token 3 is another"]}}

    monkeypatch.setattr(measure, "summarise", damaged)
    assert run(cells_in(place)[0], place)["reason"] == "wrong content: token 3 is another"


def test_no_card(place):
    cell = msgspec.structs.replace(cells_in(place)[0], device="cuda")
    if measure.torch.cuda.is_available():
        pytest.skip("there is one")
    assert run(cell, place)["reason"] == "no CUDA device"


def test_a_trace_that_a_worker_does_not_see_is_handed_over(place):
    cell = cells_in(place)[0]
    content = (place / "tiny.parquet").read_bytes()
    (place / "tiny.parquet").unlink()
    measure._steps.cache_clear()
    assert "no such file" in run(cell, place)["reason"].lower()
    assert run(cell, place, trace=content)["status"] == "done"
    assert run(cell, place)["status"] == "done"  # from what it got before


def test_a_trace_that_was_replaced_is_not_taken_for_the_old_one(place):
    cell = cells_in(place)[0]
    measure._steps.cache_clear()
    (place / "tiny.parquet").write_bytes(b"another")
    assert "is not the trace that the sweep began with" in run(cell, place)["reason"]


def test_another_library_is_not_used_for_a_cell(place):
    cell = msgspec.structs.replace(cells_in(place)[0], library="source 0123456789abcdef")
    assert "and not source 0123456789abcdef" in run(cell, place)["reason"]
    damaged = run(cell, place, wheel=b"damaged", wheel_sha256=digest_of(b"whole"))
    assert "damaged" in damaged["reason"]


def test_a_worker_says_what_it_has(place):
    cells = cells_in(place)
    mark = place / "mark"
    mark.write_text("the token")
    found = introduce([cells[0].trace], str(mark), "token")
    assert found.traces == {cells[0].trace.sha256}
    assert found.sees_folder
    assert found.software == Software.here()
    assert not introduce([], str(mark), "another").sees_folder
    assert not introduce([], str(place / "nothing"), "token").sees_folder
    assert not introduce([msgspec.structs.replace(cells[0].trace, path="/nowhere")], str(mark), "").traces
    other = msgspec.structs.replace(found.software, torch="1.0")
    assert found.software.difference(other) == f"torch is 1.0 and not {found.software.torch}"


class TestFrame:
    def test_pandas_and_we_read_the_same(self, place):
        cells = cells_in(place)[:3]
        for cell in cells:
            write_cell(place / "out" / f"{cell.id}.parquet", run(cell, place))
        (place / "out" / "_wheels").mkdir()
        (place / "out" / "_wheels" / "a.whl").write_text("no Parquet file")
        (place / "out" / "_sweep.json").write_text("{}")
        ours, plain = read_sweep(place / "out"), pd.read_parquet(place / "out")
        assert sorted(ours["cell"]) == sorted(plain["cell"]) == sorted(each.id for each in cells)
        assert list(ours.columns) == list(plain.columns) == SCHEMA.names
        assert ours["hit"].dtype == pd.Int64Dtype()

    def test_what_is_no_cell_is_left_out_with_its_reason(self, place):
        cell = cells_in(place)[0]
        write_cell(place / "out" / f"{cell.id}.parquet", run(cell, place))
        (place / "out" / "damaged.parquet").write_text("PAR1 and nothing")
        (place / "out" / "other.parquet").write_bytes((place / "tiny.parquet").read_bytes())
        left_out = LeftOut()
        assert len(read_sweep(place / "out", left_out)) == 1
        assert sorted(dict(left_out.files).values()) == [
            "cannot be read: it is no Parquet file, or damaged", "no file of a sweep",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "rows", [[{}, {}], [{"reason": "long" * 10**6}], []], ids=["two rows", "a long text", "no row"]
    )
    def test_what_is_no_row_of_a_cell_is_not_read(self, place, rows, monkeypatch):
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), place / "odd.parquet", compression="zstd")
        monkeypatch.setattr(pq.ParquetFile, "read", lambda *_: pytest.fail("it was read"))
        with pytest.raises(ResultsError, match="its columns or rows are none of a cell"):
            read_cell(place / "odd.parquet")

    def test_a_damaged_file_is_an_error_or_the_same_row(self, place):
        path, rng = place / "cell.parquet", random.Random(0)
        write_cell(path, run(cells_in(place)[0], place))
        whole, row = path.read_bytes(), read_cell(path)
        refused = 0
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged[: rng.choice([len(whole), rng.randrange(len(whole))])])
            try:
                assert read_cell(path).equals(row)
            except ResultsError:
                refused += 1
        assert refused > 200

    def test_a_fifo_is_not_waited_for(self, place):
        os.mkfifo(place / "pipe.parquet")
        with pytest.raises(ResultsError, match="is a FIFO"):
            read_cell(place / "pipe.parquet")

    def test_a_file_of_another_version_is_refused(self, place):
        newer = SCHEMA.with_metadata({b"kvbench_sweep": b"2"})
        pq.write_table(pa.Table.from_pylist([{}], newer), place / "new.parquet")
        with pytest.raises(ResultsError, match="a version of the schema that this kvbench does not know"):
            read_cell(place / "new.parquet")
        with pytest.raises(ResultsError, match="no cell that can be read"):
            read_sweep(place)
        with pytest.raises(ResultsError, match="no such folder"):
            read_sweep(place / "nothing")


def test_the_page_has_every_column():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (yes|no) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows == [(each.name, each.meaning, "yes" if each.exact else "no") for each in COLUMNS]
