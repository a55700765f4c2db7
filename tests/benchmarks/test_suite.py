"""The asv suite: light to import, the checkout's harness around whatever library is installed, and honest skips."""

import gc
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import ClassVar

import pytest
from faulty_backends import TokenMajor
from suite import bridge, cells, clock, fills, operations, processes, replays
from suite.fills import Fills
from suite.operations import Growth, Operations
from suite.replays import Recordings, Replays

from kvbench.record.fills import FILLS
from kvbench.replay.operations import OPERATION_KINDS
from kvcache import registry
from kvcache.backend import CacheBackend
from kvcache.geometry import GEOMETRIES, Geometry
from kvcache.manager import KVCacheManager

ROOT = Path(__file__).resolve().parents[2]


def run(code, *paths):
    """Run ``code`` in a process of its own, as asv does; what it prints."""
    environment = {"PYTHONPATH": ":".join(map(str, paths)), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_suite_imports_neither_torch_nor_the_library():
    """asv imports all of it in every process: that must cost nothing and fail on no commit."""
    loaded = run(
        "import sys, suite.replays, suite.operations, suite.fills, suite.bridge;"
        "print([n for n in ('torch', 'kvcache') if n in sys.modules])",
        ROOT / "benchmarks",
    )
    assert loaded == "[]"


@pytest.mark.parametrize("module", [bridge, cells, clock, fills, operations, processes, replays])
def test_asv_takes_no_helper_for_a_benchmark(module):
    """It takes every function with such a name, imported ones as well; without arguments they fail each night."""
    assert not [name for name in vars(module) if re.match("(time|track|mem|peakmem|timeraw)_", name)]


def test_the_harness_is_the_checkouts_and_the_library_the_installed_one(tmp_path):
    shutil.copytree(ROOT / "kvcache", tmp_path / "kvcache")
    places = json.loads(
        run(
            "import json; from suite.bridge import put_suite_in_place as put; fault = put();"
            "import kvcache.manager, kvbench.replay.passes as r, kvbench.replay.drive as d;"
            "print(json.dumps([fault, kvcache.manager.__file__, r.__file__, d.__file__]))",
            ROOT / "benchmarks",
            tmp_path,
        )
    )
    assert places[0] is None
    assert Path(places[1]).is_relative_to(tmp_path)
    assert [Path(each).parent for each in places[2:]] == [ROOT / "kvbench" / "replay"] * 2


def test_a_library_whose_policies_see_no_search_fits(tmp_path):
    shutil.copytree(ROOT / "kvcache", tmp_path / "kvcache")
    older = "import kvcache; del kvcache.SearchInfo, kvcache.CacheBackend.wants_info;"
    put = "from suite.bridge import put_suite_in_place as put; print(put(), kvcache.CacheBackend.wants_info)"
    assert run(older + put, ROOT / "benchmarks", tmp_path) == "None False"


def test_the_suite_needs_no_msgspec():
    """Environments of old commits have none: what the suite and the gate's benchmarks import must do without."""
    files = [file for folder in ("suite", "gates") for file in (ROOT / "benchmarks" / folder).glob("*.py")]
    modules = {name for file in files for name in re.findall(r"from (kvbench[.\w]*) import", file.read_text())}
    assert {"kvbench.trace.reader", "kvbench.record.synthetic", "kvbench.replay.summary"} <= modules
    imports = "".join(f"import {module}; " for module in sorted(modules))
    assert run(f"import sys; sys.modules['msgspec'] = None; {imports}print('done')", ROOT) == "done"


def test_a_library_that_does_not_fit_is_a_reason_and_no_error(tmp_path):
    (tmp_path / "kvcache").mkdir()
    for name in ("__init__", "backend"):
        (tmp_path / "kvcache" / f"{name}.py").write_text("")
    said = run("from suite.bridge import put_suite_in_place as put; print(put())", ROOT / "benchmarks", tmp_path)
    assert said.startswith("this commit's kvcache does not fit the suite: ")


@pytest.mark.parametrize("module", ["__init__", "backend"])
@pytest.mark.parametrize("fault", ["import no_such_module", "from kvcache.geometry import no_such_name", "None.size"])
def test_a_library_that_is_broken_is_an_error_and_no_reason_to_skip(tmp_path, module, fault):
    shutil.copytree(ROOT / "kvcache", tmp_path / "kvcache")
    (tmp_path / "kvcache" / f"{module}.py").write_text(fault)
    with pytest.raises(AssertionError, match=r"no_such|NoneType"):
        run("from suite.bridge import put_suite_in_place as put; put()", ROOT / "benchmarks", tmp_path)


@pytest.mark.parametrize(
    ("suite", "fewest"), [(Replays, 20), (Recordings, 20), (Operations, 6), (Growth, 3), (Fills, 9)]
)
def test_every_metric_has_a_unit_and_a_version(suite, fewest):
    tracks = [getattr(suite, name) for name in dir(suite) if name.startswith("track_")]
    assert len(tracks) >= fewest
    assert all(each.unit and each.version == "1" for each in tracks)


def test_names_units_and_versions_are_those_of_the_committed_history():
    """A history goes on only under the same name, and in the same unit. A new metric has no history yet."""
    committed = json.loads((ROOT / "benchmarks" / "results" / "benchmarks.json").read_text())
    known = {
        name: (each["unit"], each["version"], each["param_names"])
        for name, each in committed.items()
        if name != "version"
    }
    ours = {}
    for module, suite in (("replays", Replays), ("operations", Operations), ("operations", Growth), ("fills", Fills)):
        for name in dir(suite):
            if name.startswith("track_"):
                method = getattr(suite, name)
                ours[f"{module}.{suite.__name__}.{name}"] = method.unit, method.version, suite.param_names
    assert {name: ours.get(name) for name in known} == known


def test_asvs_pages_look_for_steps_in_ratios_and_counters_alone():
    """Its step detection is right about every second step of a raw time: our report judges those."""
    committed = json.loads((ROOT / "benchmarks" / "results" / "benchmarks.json").read_text())
    ((pattern, first),) = json.loads((ROOT / "asv.conf.json").read_text())["regressions_first_commits"].items()
    assert first is None  # asv looks nowhere
    units = {name: each["unit"] for name, each in committed.items() if name != "version"}
    raw = {name for name in units if re.match(pattern, f"{name}('start', 'pong')@main")}
    assert raw == {name for name, unit in units.items() if unit == "us"}


def test_every_recorded_trace_is_measured():
    committed = {path.stem for path in (ROOT / "benchmarks" / "traces").glob("*.parquet")}
    assert committed == {*replays.RECORDINGS, replays.TRACES[0]}


@pytest.mark.parametrize("suite", [Replays, Recordings, Operations, Growth, Fills])
class TestCells:
    def test_what_cannot_run_is_skipped_with_its_reason(self, suite):
        with pytest.raises(NotImplementedError, match="no CUDA device"):
            suite().setup({("t", "legacy", "cuda"): "skipped: no CUDA device"}, "t", "legacy", "cuda")

    def test_wrong_content_is_a_failed_benchmark_and_no_fast_one(self, suite):
        with pytest.raises(RuntimeError, match="wrong content"):
            suite().setup({("t", "new", "cpu"): RuntimeError("new returned wrong content: ...")}, "t", "new", "cpu")

    def test_a_library_that_does_not_fit_skips_every_cell(self, suite, monkeypatch):
        monkeypatch.setattr(cells, "put_suite_in_place", lambda: "this commit's kvcache does not fit the suite")
        found = suite().setup_cache()
        assert list(found) == list(product(*suite.params))
        with pytest.raises(NotImplementedError, match="does not fit the suite"):
            suite().setup(found, *next(iter(found)))

    def test_each_has_a_cache_of_its_own(self, suite):
        """asv knows a cache by where its ``setup_cache`` stands: an inherited one would be shared."""
        assert "setup_cache" in vars(suite)
        assert suite.setup_cache.timeout == 3600  # on a busy machine one of them took more than 600 s


def test_libraries_of_before_resident_batches_are_measured_all_the_same(monkeypatch):
    """The harness is this checkout's whatever the library: what it asks of a backend, older ones must have."""
    for backend in (CacheBackend, KVCacheManager):
        monkeypatch.delattr(backend, "row_start")
    monkeypatch.setattr(operations, "MOST_CALLS", operations.FEWEST_CALLS)
    monkeypatch.setattr(replays, "RECORDED_SEARCHES", 1)
    backends = ["legacy", "new:private"]
    monkeypatch.setattr(Operations, "params", [operations.KINDS, ["cartpole"], [2], backends, ["cpu"]])
    monkeypatch.setattr(Replays, "params", [replays.TRACES[:1], backends, ["cpu"]])
    monkeypatch.setattr(Operations, "processes", 1)
    for suite in (Operations, Replays):
        assert all(isinstance(cell, dict) for cell in suite().setup_cache().values())


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([{"time": 3.0, "tensor_ops": 4}, {"time": 1.0, "tensor_ops": 4}, {"time": 2.0, "tensor_ops": 4}], None),
        ([{"time": 3.0}, "skipped: no CUDA device", {"time": 2.0}], 1),
        ([{"time": 3.0}, {"time": 3.0}, RuntimeError("wrong content")], 2),
    ],
)
def test_of_several_processes_each_number_is_the_middle_one(found, kept):
    assert processes.middle(found) == ({"time": 2.0, "tensor_ops": 4} if kept is None else found[kept])


@pytest.mark.slow
def test_further_processes_measure_the_same_cells_of_the_same_library(monkeypatch):
    monkeypatch.setattr(Operations, "params", [["hash"], ["cartpole"], [2], ["legacy", "new:slab", "none"], ["cpu"]])
    monkeypatch.setattr(Operations, "processes", 1)
    here, (there,) = Operations().all_cells(), processes.measure_elsewhere(Operations(), 1)
    assert here.keys() == there.keys()
    for place, cell in here.items():
        if isinstance(cell, str):
            assert there[place] == cell
        else:
            assert {**cell, "time": 0, "time_over_legacy": 0} == {**there[place], "time": 0, "time_over_legacy": 0}


def test_a_further_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(processes, "_HERE", "raise SystemExit('no memory')")
    with pytest.raises(RuntimeError, match="a process that measures failed: no memory"):
        processes.measure_elsewhere(Operations(), 1)


def test_garbage_that_was_there_before_is_collected_again_afterwards(monkeypatch):
    class OfNothing(cells.Cells):
        params: ClassVar = [[]]

        def measure(self):
            self.frozen = gc.get_freeze_count()
            return {}

    suite = OfNothing()
    before = gc.get_freeze_count()
    assert suite.all_cells() == {}
    assert suite.frozen > 0
    assert gc.get_freeze_count() == before


def values(suite, found, place):
    """All that asv would record for one cell."""
    instance = suite()
    instance.setup(found, *place)
    return {name: getattr(instance, name)(found, *place) for name in dir(suite) if name.startswith("track_")}


class Raises(KVCacheManager):
    def store(self, *args):
        raise IndexError("no slot left")


class ReturnsOthersContent(KVCacheManager):
    def assemble(self):
        sizes = super().assemble()
        block = self.keys_values_wm.block
        block.copy_(block.roll(1, dims=0))
        return sizes


class FindsNothing(KVCacheManager):
    def _pool(self, name, storage, size):
        pool = super()._pool(name, storage, size)
        pool.find = lambda key: None
        return pool


class CannotBeBuilt(KVCacheManager):
    def __init__(self, config):
        raise MemoryError("too large")


class TiresOfClearing(KVCacheManager):
    """Fails only where it is timed: no check clears everything."""

    def clear_all(self):
        raise IndexError("cleared once too often")


class TiresOfStoring(KVCacheManager):
    """Fails only where it is timed: a check does not store as often."""

    stored = 0

    def store(self, *args):
        self.stored += 1
        if self.stored > 8:
            raise IndexError("stored once too often")
        super().store(*args)


BROKEN = [
    (Raises, "raised IndexError: no slot left"),
    (ReturnsOthersContent, "returned wrong content: "),
    (FindsNothing, "returned wrong content: "),
    (CannotBeBuilt, "raised MemoryError: too large"),
]


class TestTogether:
    def test_side_by_side(self):
        assert cells.together(["a", "b"], lambda names: dict.fromkeys(names, names)) == {
            "a": ["a", "b"],
            "b": ["a", "b"],
        }

    def test_whoever_fails_is_found_and_the_others_are_measured_without_it(self):
        calls = []

        def measure(names):
            calls.append(names)
            if "b" in names or "d" in names:
                raise OSError(f"{names} failed")
            return dict.fromkeys(names, names)

        found = cells.together(["a", "b", "c", "d"], measure)
        assert (found["a"], found["c"]) == (["a", "c"], ["a", "c"])
        assert str(found["b"]) == "b raised OSError: ['b'] failed"
        assert str(found["d"]) == "d raised OSError: ['d'] failed"
        assert calls == [["a", "b", "c", "d"], ["a"], ["b"], ["c"], ["d"], ["a", "c"]]

    def test_where_only_company_fails_nobody_has_numbers(self):
        def measure(names):
            if len(names) > 1:
                raise OSError("no room for both")
            return dict.fromkeys(names, 1)

        found = cells.together(["a", "b"], measure)
        assert [str(each) for each in found.values()] == [
            "measured side by side, a and b raised OSError: no room for both"
        ] * 2

    def test_nobody(self):
        assert cells.together([], lambda names: 1 / 0) == {}


@pytest.mark.slow
class TestReplays:
    @pytest.fixture
    def measure(self, monkeypatch):
        """A search of the recorded trace on the CPU, each backend as the registry now has it."""
        monkeypatch.setattr(replays, "RECORDED_SEARCHES", 1)
        monkeypatch.setattr(replays, "REPETITIONS", 2)
        monkeypatch.setattr(Replays, "params", [replays.TRACES[:1], replays.BACKENDS, ["cpu"]])
        return Replays().setup_cache

    def test_one_replay_feeds_all_numbers(self, measure):
        found = pickle.loads(pickle.dumps(measure()))
        assert set(found) == set(product(*Replays.params))
        for place in found:
            numbers = values(Replays, found, place)
            assert all(isinstance(value, (int, float)) for value in numbers.values())
            assert not any(math.isnan(value) for value in numbers.values())
            assert numbers["track_peak_memory"] > numbers["track_bytes_reserved"] > 0
            assert numbers["track_context_mismatch_rate"] == 0
            # Legacy's stale hits and misses have other histories below them. The new cache evicts these first.
            mismatches = numbers["track_context_mismatch_rate_in_small_pool"]
            assert (mismatches > 0) == place[1].startswith("legacy")
            assert numbers["track_stale_hit_rate"] == 0
            assert (numbers["track_stale_hit_rate_in_small_pool"] > 0) == place[1].startswith("legacy")
            assert (numbers["track_miss_rate_in_small_pool"] > 0) == place[1].startswith("new")
            assert (numbers["track_step_time_over_legacy"] == 1) == (place[1] == "legacy")

    @pytest.mark.parametrize(
        ("backend", "message"), [*BROKEN, (TiresOfClearing, "raised IndexError: cleared once too often")]
    )
    def test_a_broken_backend_fails_with_its_reason_and_the_others_have_numbers(
        self, measure, monkeypatch, backend, message
    ):
        monkeypatch.setitem(registry.BACKENDS, "new:private", backend)
        found = pickle.loads(pickle.dumps(measure()))
        for trace, name, device in found:
            if name == "new:private":
                with pytest.raises(RuntimeError, match=f"^new:private {message}"):
                    Replays().setup(found, trace, name, device)
            else:
                assert values(Replays, found, (trace, name, device))["track_step_time"] > 0

    def test_a_fault_in_the_small_pool_alone_is_one(self, measure, monkeypatch):
        def make(config):
            return (ReturnsOthersContent if config.recur_pool_size else KVCacheManager)(config)

        monkeypatch.setitem(registry.BACKENDS, "new:private", make)
        found = measure()
        with pytest.raises(RuntimeError, match=r"^new:private returned wrong content: .* \(recurrent slots: 50\)$"):
            Replays().setup(found, replays.TRACES[0], "new:private", "cpu")

    @pytest.mark.parametrize("legacy", [Raises, TiresOfClearing])
    def test_without_a_sound_legacy_there_are_times_but_no_ratio(self, measure, monkeypatch, legacy):
        monkeypatch.setitem(registry.BACKENDS, "legacy", legacy)
        found = measure()
        with pytest.raises(RuntimeError, match=r"^legacy raised IndexError"):
            Replays().setup(found, replays.TRACES[0], "legacy", "cpu")
        numbers = values(Replays, found, (replays.TRACES[0], "new:private", "cpu"))
        assert math.isnan(numbers["track_step_time_over_legacy"])
        assert numbers["track_step_time"] > 0

    def test_a_backend_that_a_commit_does_not_have_is_skipped_and_the_others_measured(self, measure, monkeypatch):
        monkeypatch.delitem(registry.BACKENDS, "legacy-0.2.0")
        monkeypatch.setattr(Replays, "params", [*Replays.params[:2], ["cuda", "cpu"]])
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        found = measure()
        trace = replays.TRACES[0]
        assert found[trace, "legacy-0.2.0", "cpu"] == "skipped: this commit has no backend 'legacy-0.2.0'"
        assert found[trace, "legacy", "cuda"] == "skipped: no CUDA device"
        assert values(Replays, found, (trace, "new:private", "cpu"))["track_step_time"] > 0


class TestOperations:
    @pytest.fixture
    def measure(self, monkeypatch):
        """Every kind on the smallest shape on the CPU, called as seldom as can be, in this process alone."""
        monkeypatch.setattr(Operations, "processes", 1)  # further ones would not have what a test replaces
        monkeypatch.setattr(operations, "MOST_CALLS", operations.FEWEST_CALLS)
        monkeypatch.setattr(Operations, "params", [operations.KINDS, ["cartpole"], [2], operations.BACKENDS, ["cpu"]])
        return Operations().setup_cache

    def test_the_kinds_are_those_there_are(self):
        assert tuple(operations.KINDS) == OPERATION_KINDS
        assert list(GEOMETRIES) == operations.GEOMETRIES

    def test_every_cell_has_all_numbers(self, measure):
        found = pickle.loads(pickle.dumps(measure()))
        assert set(found) == set(product(*Operations.params))
        for place in found:
            kind, _, _, backend, _ = place
            numbers = values(Operations, found, place)
            assert all(isinstance(value, (int, float)) and value >= 0 for value in numbers.values())
            assert 0 < numbers["track_time"] < 100_000
            assert (numbers["track_time_over_legacy"] == 1) == (backend == "legacy")
            # A resident batch that is asked for what it holds moves nothing.
            resting = backend == "new:paged-resident" and kind.startswith(("assemble", "retrieve"))
            assert (numbers["track_tensor_operations"] > 0) == (
                kind not in ("hash", "clear") and (kind != "lookup" or backend == "legacy") and not resting
            )

    def test_counts_are_those_of_one_call(self, measure):
        numbers = values(Operations, measure(), ("store", "cartpole", 2, "new:private", "cpu"))
        copied = 2 * 2 * 2 * 64 * 5 * 4  # rows, layers, K and V, E, tokens, bytes
        assert (numbers["track_tensor_operations"], numbers["track_bytes_copied"]) == (2, copied)
        assert numbers["track_allocations"] == numbers["track_synchronisations"] == 0

    @pytest.mark.parametrize(
        ("backend", "message"), [*BROKEN, (TiresOfStoring, "raised IndexError: stored once too often")]
    )
    def test_a_broken_backend_fails_with_its_reason_and_legacy_has_numbers(
        self, measure, monkeypatch, backend, message
    ):
        monkeypatch.setitem(registry.BACKENDS, "new:private", backend)
        found = pickle.loads(pickle.dumps(measure()))
        with pytest.raises(RuntimeError, match=f"^new:private {message}"):
            Operations().setup(found, "store", "cartpole", 2, "new:private", "cpu")
        for kind in operations.KINDS:
            assert values(Operations, found, (kind, "cartpole", 2, "legacy", "cpu"))["track_time"] > 0

    def test_a_reason_names_the_backend_once(self, measure, monkeypatch):
        monkeypatch.setattr(FindsNothing, "name", "new:private")
        monkeypatch.setitem(registry.BACKENDS, "new:private", FindsNothing)
        cell = measure()["lookup", "cartpole", 2, "new:private", "cpu"]
        assert str(cell).startswith("new:private returned wrong content: entries of [5, 5] tokens were stored")

    def test_contents_that_do_not_survive_the_timed_calls_are_found_out(self, measure, monkeypatch):
        class SpoilsTheBatch(KVCacheManager):
            def store(self, *args):
                super().store(*args)
                self.keys_values_wm.block.add_(1)

        monkeypatch.setitem(registry.BACKENDS, "new:private", SpoilsTheBatch)
        cell = measure()["store", "cartpole", 2, "new:private", "cpu"]
        assert str(cell).startswith("new:private returned wrong content: ")

    def test_the_ratio_is_of_pairs_and_grows_with_the_time(self):
        assert operations._over([20, 30, 80], [10, 60, 20]) == 2.0  # pairs: 2, 0.5, 4

    @pytest.mark.parametrize("legacy", [Raises, TiresOfStoring])
    def test_without_a_sound_legacy_there_are_times_but_no_ratio(self, measure, monkeypatch, legacy):
        monkeypatch.setitem(registry.BACKENDS, "legacy", legacy)
        found = measure()
        with pytest.raises(RuntimeError, match=r"^legacy raised IndexError"):
            Operations().setup(found, "store", "cartpole", 2, "legacy", "cpu")
        numbers = values(Operations, found, ("store", "cartpole", 2, "new:private", "cpu"))
        assert math.isnan(numbers["track_time_over_legacy"])
        assert numbers["track_time"] > 0

    def test_what_is_missing_or_too_large_is_skipped_with_its_reason(self, measure, monkeypatch):
        monkeypatch.setattr(
            Operations, "params", [["store"], ["cartpole", "wide"], [2], ["legacy", "new"], ["cpu", "cuda"]]
        )
        monkeypatch.delitem(registry.BACKENDS, "new")
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr(operations, "LARGEST_POOL", 7_000_000)
        found = measure()
        assert found["store", "cartpole", 2, "new", "cpu"] == "skipped: this commit has no backend 'new'"
        assert found["store", "cartpole", 2, "legacy", "cuda"] == "skipped: no CUDA device"
        assert found["store", "wide", 2, "legacy", "cpu"] == (
            "skipped: 4 slots of 1966080 bytes are more than 7000000 bytes"
        )
        assert values(Operations, found, ("store", "cartpole", 2, "legacy", "cpu"))["track_time"] > 0

    def test_the_number_of_calls_follows_from_the_shape_alone(self):
        calls = {
            (kind, name, rows): operations._calls(kind, GEOMETRIES[name], rows, 2 * rows)
            for kind, name, rows in product(operations.KINDS, operations.GEOMETRIES, operations.BATCHES)
        }
        assert calls["store", "cartpole", 8] == 200
        assert calls["store", "cartpole", 64] == 128
        assert calls["store", "pong", 8] == 85
        assert calls["clear", "pong", 8] == 42  # all slots are filled before each
        assert calls["store", "wide", 64] == 10
        assert calls["hash", "wide", 64] == 200
        assert (min(calls.values()), max(calls.values())) == (10, 200)


class TestGrowth:
    @pytest.fixture
    def measure(self, monkeypatch):
        monkeypatch.setattr(operations, "MOST_CALLS", operations.FEWEST_CALLS)
        points = ["environments=1", "environments=4", "layers=4", "context=16", "slots=16", "slots=64"]
        monkeypatch.setattr(Growth, "params", [points, operations.BACKENDS, ["cpu"]])
        return Growth().setup_cache

    def test_points_are_one_axis_at_a_time_from_their_base(self):
        shapes = {point: operations._shape(point) for point in operations.POINTS}
        pong = (2, 8, 768, 8)
        assert [
            (each.num_layers, each.num_heads, each.embed_dim, each.context_length, rows, slots)
            for each, rows, slots in shapes.values()
        ] == [
            *((*pong, rows, None) for rows in (1, 2, 4, 8, 16, 32, 64)),
            *((layers, *pong[1:], 8, None) for layers in (1, 2, 4, 8, 16)),
            *((4, 4, 256, context, 8, None) for context in (8, 16, 32, 64, 128)),
            *((2, 2, 64, 8, 8, slots) for slots in (16, 64, 256, 1024, 4096)),
        ]

    def test_a_batch_is_what_is_retrieved_and_what_is_stored(self, measure):
        found = pickle.loads(pickle.dumps(measure()))
        assert set(found) == set(product(*Growth.params))
        numbers = {place[:2]: values(Growth, found, place) for place in found}
        assert all(each["track_time"] > 0 for each in numbers.values())
        # Each row is copied once each way, and shorter rows are padded: one operation for all of them.
        operations_of_new = {
            point: each["track_tensor_operations"] for (point, name), each in numbers.items() if name == "new:private"
        }
        assert operations_of_new == {
            "environments=1": 2, "environments=4": 9, "layers=4": 17, "context=16": 17, "slots=16": 17, "slots=64": 17,
        }  # fmt: skip
        entry = GEOMETRIES["cartpole"].entry_bytes()
        assert numbers["slots=16", "new:private"]["track_bytes_reserved"] == (16 + 8) * entry
        assert numbers["slots=64", "new:private"]["track_bytes_reserved"] == (64 + 8) * entry

    def test_either_half_of_a_batch_fails_it(self, measure, monkeypatch):
        class StoresWrong(KVCacheManager):
            """Sound until its pool is full."""

            def store(self, envs, keys, scope, priorities=None):
                full = len(self.recur_pool) == self.recur_pool.pool_size
                super().store(envs, [*keys[:-1], keys[0]] if full else keys, scope, priorities)

        monkeypatch.setitem(registry.BACKENDS, "new:private", StoresWrong)
        found = measure()
        with pytest.raises(RuntimeError, match=r"^new:private returned wrong content: "):
            Growth().setup(found, "environments=4", "new:private", "cpu")
        assert values(Growth, found, ("environments=4", "legacy", "cpu"))["track_time"] > 0

    def test_skips_are_handed_on(self, measure, monkeypatch):
        monkeypatch.delitem(registry.BACKENDS, "legacy")
        found = measure()
        assert found["layers=4", "legacy", "cpu"] == "skipped: this commit has no backend 'legacy'"
        assert values(Growth, found, ("layers=4", "new:private", "cpu"))["track_time"] > 0


class TestFills:
    @pytest.fixture
    def measure(self, monkeypatch):
        """A small geometry whose contexts are longer than its searches are deep."""
        long = Geometry("wide", 1, 2, 16, 20, 2, 3)
        monkeypatch.setitem(GEOMETRIES, "wide", long)
        monkeypatch.setattr(fills, "SIMULATIONS", 3)
        monkeypatch.setattr(Fills, "params", [fills.FILLS, ["wide"], fills.BACKENDS, ["cpu"]])
        return Fills().setup_cache

    def test_the_fills_are_those_there_are(self):
        assert list(FILLS) == fills.FILLS
        assert list(GEOMETRIES) == fills.GEOMETRIES

    def test_every_cell_has_all_numbers_and_is_as_full_as_it_says(self, measure):
        found = pickle.loads(pickle.dumps(measure()))
        assert set(found) == set(product(*Fills.params))
        most = {"start": 7, "middle": 15}
        for place, cell in found.items():
            numbers = values(Fills, found, place)
            assert all(isinstance(value, (int, float)) and value >= 0 for value in numbers.values())
            assert numbers["track_step_time"] > 0
            assert numbers["track_forward_over_legacy"] > 0
            assert (numbers["track_step_time_over_legacy"] == 1) == (place[2] == "legacy")
            assert numbers["track_strided_bytes"] == 0
            assert cell["longest"] == 17 or cell["longest"] <= most[place[0]]
        moved = [found[each, "wide", "new:slab", "cpu"]["bytes_copied"] for each in ("start", "middle", "sliding")]
        assert sorted(set(moved)) == moved
        # The search that is counted is not the first one.
        assert found["sliding", "wide", "new:private", "cpu"]["allocations"] == 0
        assert found["sliding", "wide", "legacy", "cpu"]["allocations"] > 0

    def test_a_layout_whose_tokens_are_apart_is_a_number_that_rises(self, measure, monkeypatch):
        monkeypatch.setitem(registry.BACKENDS, "new:slab", TokenMajor)
        monkeypatch.setattr(Fills, "params", [["sliding"], ["wide"], ["legacy", "new:slab"], ["cpu"]])
        found = measure()
        assert found["sliding", "wide", "legacy", "cpu"]["strided_bytes"] == 0
        assert found["sliding", "wide", "new:slab", "cpu"]["strided_bytes"] == 2 * 2 * 16 * 17 * 4

    @pytest.mark.parametrize(
        ("backend", "message"), [*BROKEN, (TiresOfStoring, "raised IndexError: stored once too often")]
    )
    def test_a_broken_backend_fails_with_its_reason_and_legacy_has_numbers(
        self, measure, monkeypatch, backend, message
    ):
        monkeypatch.setitem(registry.BACKENDS, "new:private", backend)
        monkeypatch.setattr(Fills, "params", [["start"], ["wide"], ["legacy", "new:private"], ["cpu"]])
        found = pickle.loads(pickle.dumps(measure()))
        with pytest.raises(RuntimeError, match=f"^new:private {message}"):
            Fills().setup(found, "start", "wide", "new:private", "cpu")
        assert values(Fills, found, ("start", "wide", "legacy", "cpu"))["track_step_time"] > 0

    def test_without_a_sound_legacy_there_are_times_but_no_ratio(self, measure, monkeypatch):
        monkeypatch.setitem(registry.BACKENDS, "legacy", Raises)
        monkeypatch.setattr(Fills, "params", [["start"], ["wide"], ["legacy", "new:slab"], ["cuda", "cpu"]])
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        found = measure()
        assert found["start", "wide", "new:slab", "cuda"] == "skipped: no CUDA device"
        numbers = values(Fills, found, ("start", "wide", "new:slab", "cpu"))
        assert math.isnan(numbers["track_step_time_over_legacy"])
        assert math.isnan(numbers["track_forward_over_legacy"])
        assert numbers["track_step_time"] > 0
