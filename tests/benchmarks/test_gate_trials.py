"""What benchmarks/gate_series.py plants is what it says: otherwise its counts would be about something else."""

import itertools
import shutil
import statistics
import time
from pathlib import Path

import pytest
from gate_loops import loops_source
from gate_series import BENCHMARKS, SERIES, SLOWED, STALE
from planted import planted_manager

from kvbench.measure.counters import Counts
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.operations import operation_config, prepare_operation
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import verify_replay
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import read_steps
from kvcache import make_backend, manager
from kvcache.config import CacheConfig
from kvcache.geometry import GEOMETRIES, Geometry

pytestmark = pytest.mark.slow

TINY = Geometry("tiny", 2, 2, 16, 8, 2, 6, "absolute")
COPY = Counts(tensor_ops=1, bytes_copied=4)
ALLOCATION = Counts(tensor_ops=1, allocations=1, bytes_allocated=4)
KINDS = {
    "hash_states": "hash", "lookup": "lookup", "assemble": "assemble_unequal", "store": "store",
    "clear_recur_cache": "clear",
}  # fmt: skip


def change_of(series, method):
    return next(each for each in SERIES[series].changes if each.name == method)


@pytest.mark.parametrize("method", BENCHMARKS)
@pytest.mark.parametrize(("series", "more"), [("copy", COPY), ("allocation", ALLOCATION)])
def test_one_tensor_operation_more(series, more, method):
    config = operation_config(GEOMETRIES["cartpole"], rows=2)
    plain, added = manager.KVCacheManager, planted_manager(change_of(series, method).appended)
    before, after = (prepare_operation(KINDS[method], make(config)).counts() for make in (plain, added))
    assert after == before + more


def test_one_stale_hit_more_and_its_fault(tmp_path):
    path = tmp_path / "tiny.parquet"
    list(write_synthetic_trace(path, SyntheticSearch(TINY, searches=3, seed=0)))
    steps = list(read_steps(TraceReader(path).events()))
    contents, latents = Contents(TINY), Latents(TINY.embed_dim, "cpu")
    sound = manager.KVCacheManager

    def outcomes(make):
        backend = make(CacheConfig(TINY, recur_pool_size=3))
        backend.position_shift = contents.position_shift("cpu", backend.config.dtype)
        verification = verify_replay(backend, steps, contents, latents)
        assert ["stale hit: " in fault for fault in verification.faults] == [True] * (make is not sound)
        return verification.outcomes.total

    before, after = outcomes(sound), outcomes(planted_manager(STALE))
    assert before[Outcome.MISS] > 1
    assert (before[Outcome.STALE_HIT], after[Outcome.STALE_HIT]) == (0, 1)


def test_the_planted_share_of_a_calls_own_time():
    class KVCacheManager:
        def work(self, microseconds):
            end = time.perf_counter_ns() + 1000 * microseconds
            while time.perf_counter_ns() < end:
                pass
            return microseconds

    plain = KVCacheManager.work
    source = SLOWED.replace("{method}", "work").replace("{share}", "0.50")
    exec(source, {"KVCacheManager": KVCacheManager})
    laps = {plain: [], KVCacheManager.work: []}
    for _ in range(60):
        for method, taken in laps.items():
            start = time.perf_counter_ns()
            assert method(KVCacheManager(), 200) == 200
            taken.append(time.perf_counter_ns() - start)
    assert 1.4 <= statistics.median(laps[KVCacheManager.work]) / statistics.median(laps[plain]) <= 1.7


@pytest.mark.parametrize("series", ["slower-10", "slower-3"])
def test_what_is_slower_returns_the_same(series):
    for change in SERIES[series].changes:
        method = change.name
        config = operation_config(GEOMETRIES["cartpole"], rows=2)
        slowed = planted_manager(change_of(series, method).appended)
        assert getattr(slowed, method) is not getattr(manager.KVCacheManager, method)
        prepare_operation(KINDS[method], slowed(config)).counts()  # checks


def test_a_loop_is_of_its_operation_storage_and_geometry_and_the_shorter_of_two_kinds(monkeypatch):
    turns, original = [], itertools.repeat
    monkeypatch.setattr(
        "itertools.repeat", lambda *given: turns.append(given[1]) or () if None in given else original(*given)
    )
    source = loops_source({("slab", "pong", "store"): 7, ("slab", "pong", "slide"): 5, ("paged", "pong", "store"): 9})
    longer = planted_manager(source)
    monkeypatch.undo()
    for storage, geometry in [("slab", "pong"), ("paged", "pong"), ("paged", "cartpole")]:
        made = make_backend(f"new:{storage}", operation_config(GEOMETRIES[geometry], rows=2))
        made.__class__ = longer
        prepare_operation("store", made).counts()  # checks
        assert set(turns) == {{"slab": 5, "paged": 9}[storage] if geometry == "pong" else 0}
        turns.clear()
    assert longer.lookup.__name__ == "lookup"


def test_every_source_that_is_planted_can_be_imported():
    for series in SERIES.values():
        for change in series.changes:
            planted_manager(change.appended)


def test_every_change_of_files_fits_this_checkout(tmp_path):
    root = Path(__file__).parents[2]
    for series in SERIES.values():
        for number, change in enumerate(each for each in series.changes if each.replaced):
            clone = tmp_path / f"{number}"
            for path, *_ in change.replaced:
                (clone / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / path, clone / path)
            before = {path: (clone / path).read_text() for path, *_ in change.replaced}
            (clone / "kvcache").mkdir(parents=True, exist_ok=True)
            change.plant(clone)
            assert all(not (clone / path).exists() or (clone / path).read_text() != before[path] for path in before)
