"""Profiles of small replays: the trace that opens in Perfetto, the table, the stacks; CUDA's part by fakes."""

import csv
import json
import re
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from xml.etree import ElementTree

import msgspec
import pytest
import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, record_function
from traces import TINY, good_events, steps_of, synthetic, write_events

from kvbench.profile.chrome_trace import read_chrome_trace
from kvbench.profile.profiler import Instruments, Profiling, operation_table
from kvbench.profile.ranges import INFERENCES, KINDS, MODEL, annotate_cuda
from kvbench.results.decode import ResultsError
from kvbench.results.profile import FORMAT, INDEX, SCHEMA_VERSION, read_profile_index
from kvcache.config import CacheConfig
from kvcache.registry import make_backend

BACKENDS = ("legacy", "new", "new:paged-resident", "new:private")


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    # Its second simulation misses in one environment: all kinds of operations are in it, and a whole search besides.
    folder = tmp_path_factory.mktemp("traces")
    return [*steps_of(write_events(folder / "by-hand", good_events())), *steps_of(synthetic(folder / "tiny"), 1)]


@pytest.fixture(scope="module", params=BACKENDS)
def profiled(request, steps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    return folder, Profiling(request.param, steps, CacheConfig(TINY), folder).run()


def file_of(profiled, kind):
    folder, profile = profiled
    (file,) = [each for each in profile.files if each.kind == kind]
    return folder / file.path


class TestFiles:
    def test_are_named_with_their_sizes_and_nothing_else_is_there(self, profiled):
        folder, profile = profiled
        assert [each.kind for each in profile.files] == ["operations", "trace", "stacks", "flame_graph"]
        on_disk = {each.relative_to(folder).as_posix(): each.stat().st_size for each in folder.rglob("*.*")}
        assert on_disk == {each.path: each.bytes for each in profile.files}
        assert {each.partition("/")[0] for each in on_disk} == {profile.backend.replace(":", "-")}

    def test_the_trace_is_one_that_perfetto_opens(self, profiled):
        events = read_chrome_trace(file_of(profiled, "trace"))
        complete = [each for each in events if each["ph"] == "X"]
        assert all({"name", "ts", "dur", "pid", "tid"} <= set(each) and each["dur"] >= 0 for each in complete)
        assert any(each.get("cat") == "cpu_op" and each["name"].startswith("aten::") for each in complete)

    def test_the_trace_has_a_range_for_every_call_of_every_kind(self, profiled, steps):
        events = read_chrome_trace(file_of(profiled, "trace"))
        ranges = [each["name"] for each in events if each.get("cat") == "user_annotation"]
        counts = {name: ranges.count(name) for name in {*ranges}}
        inferences = [step for step in steps if step.envs]
        asking = [step for step in inferences if any(parent is not None for parent in step.parents)]
        storing = [step for step in inferences if step.keys]
        missing = sum(step.nodes.count(None) for step in asking) - sum(
            step.parents[row] is None for step in asking for row, node in enumerate(step.nodes) if node is None
        )
        assert counts == {
            INFERENCES[0]: sum(not step.is_recurrent for step in steps),
            INFERENCES[1]: sum(step.is_recurrent for step in steps),
            "hash": len(asking) + len(storing),
            "lookup": len(inferences),
            "assemble": len(inferences),
            "store": len(storing),
            "clear": sum(len(step.clears) for step in steps),
            "supply": missing,
            MODEL: len(storing) + missing,
        }

    def test_ranges_lie_in_their_inference(self, profiled):
        events = read_chrome_trace(file_of(profiled, "trace"))
        ranges = [each for each in events if each.get("cat") == "user_annotation"]
        inferences = [each for each in ranges if each["name"] in INFERENCES]
        for one in ranges:
            around = [
                each for each in inferences
                if each["ts"] <= one["ts"] and one["ts"] + one["dur"] <= each["ts"] + each["dur"] + 0.01
            ]  # fmt: skip
            assert len(around) == 1, one

    def test_stacks_begin_with_the_kinds_and_reach_torch(self, profiled):
        lines = file_of(profiled, "stacks").read_text().splitlines()
        stacks = [line.rpartition(" ")[0].split(";") for line in lines]
        assert all(int(line.rpartition(" ")[2]) > 0 for line in lines)
        assert {stack[0] for stack in stacks} == set(KINDS)
        assert any(stack[-1].startswith("aten::") for stack in stacks)
        assert any("(kvcache/" in frame for stack in stacks for frame in stack)
        assert not any("profiler" in frame for stack in stacks for frame in stack)

    def test_the_flame_graph_names_backend_and_kinds(self, profiled):
        text = file_of(profiled, "flame_graph").read_text()
        ElementTree.fromstring(text)
        assert f"{profiled[1].backend}: where" in text
        assert all(f">{kind}</text>" in text for kind in ("hash", "lookup", "assemble", "store"))

    def test_the_table_is_that_of_the_trace(self, profiled):
        with open(file_of(profiled, "operations"), newline="") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        frame = profiled[1].operations
        assert list(rows) == list(frame["name"])
        events = [each for each in read_chrome_trace(file_of(profiled, "trace")) if each["ph"] == "X"]
        for name, row in rows.items():
            called = [each["dur"] for each in events if each["name"] == name]
            assert int(row["calls"]) == len(called), name
            assert float(row["total_cpu_us"]) == pytest.approx(sum(called), abs=0.01 * len(called)), name
            assert row["self_device_us"] == row["total_device_us"] == ""
        assert not any(name.startswith("profiler::") for name in rows)


class TestTheReplayUnderneath:
    def test_each_pass_begins_with_empty_pools_and_asks_the_same(self, steps, tmp_path):
        backends, cleared = [], []

        def make(name, config):
            backends.append(make_backend(name, config))
            clear_all = backends[-1].clear_all
            backends[-1].clear_all = lambda: (cleared.append(len(backends)), clear_all())
            return backends[-1]

        Profiling("new", steps, CacheConfig(TINY), tmp_path, make=make).run()
        (backend,) = backends
        assert cleared == [1, 1, 1]
        once = make_backend("new", CacheConfig(TINY))
        profiling = Instruments((ProfilerActivity.CPU,), lambda name: nullcontext())
        folder = tmp_path / "other"
        Profiling("new", steps, CacheConfig(TINY), folder, profiling, lambda *_: once).run()
        queries = backend.hierarchy_stats
        assert queries.total_queries % 3 == 0  # warm, operations, stacks
        assert queries == once.hierarchy_stats
        asked = sum(parent is not None for step in steps if step.is_recurrent for parent in step.parents)
        assert queries.total_queries == 3 * asked

    def test_passes_are_passes_of(self, steps, tmp_path):
        passes = []
        Profiling("new", steps, CacheConfig(TINY), tmp_path).run(passes.append)
        assert passes == ["warm up", "operations", "stacks"]

    def test_an_unknown_backend(self, steps, tmp_path):
        with pytest.raises(ValueError, match="unknown backend 'old'"):
            Profiling("old", steps, CacheConfig(TINY), tmp_path).run()
        assert list(tmp_path.iterdir()) == []


class TestCuda:
    """What a CUDA device brings, by fakes: no such device is needed."""

    def test_its_instruments(self):
        cuda, host = Instruments.of("cuda:0"), Instruments.of("cpu")
        assert set(cuda.activities) == {ProfilerActivity.CPU, ProfilerActivity.CUDA}
        assert cuda.synchronize is torch.cuda.synchronize
        assert (cuda.annotate, host.annotate) == (annotate_cuda, record_function)
        assert cuda.memory_history is not None
        assert host.memory_history is None

    def test_the_allocators_history_is_that_of_a_fresh_backend(self, steps, tmp_path):
        doings = []

        @contextmanager
        def history(path):
            doings.append("record")
            yield
            doings.append("dump")
            path.write_bytes(b"snapshot")

        def make(name, config):
            doings.append("make")
            return make_backend(name, config)

        instruments = Instruments(
            (ProfilerActivity.CPU,), lambda name: nullcontext(), lambda: doings.append("synchronize"), history
        )
        profile = Profiling("new:slab", steps, CacheConfig(TINY), tmp_path, instruments, make).run()
        # Each pass ends when the device is done: while its instrument still looks.
        assert doings == ["make", *3 * ["synchronize"], "record", "make", "synchronize", "dump"]
        assert (profile.files[-1].kind, profile.files[-1].path) == ("memory_snapshot", "new-slab/memory.pickle")
        assert (tmp_path / "new-slab" / "memory.pickle").read_bytes() == b"snapshot"

    @pytest.mark.parametrize("fails", [False, True])
    def test_the_history_is_switched_off_again(self, monkeypatch, tmp_path, fails):
        calls = []
        monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **given: calls.append(given))
        monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", calls.append)
        history = Instruments.of("cuda").memory_history(tmp_path / "memory.pickle")
        try:
            with history:
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        on, *dumped, off = calls
        assert on["max_entries"] > 0
        assert off == {"enabled": None}
        assert dumped == ([] if fails else [str(tmp_path / "memory.pickle")])

    def test_kernels_count_once(self):
        def each(key, device_type, host, device, count=1):
            return SimpleNamespace(
                key=key, device_type=device_type, count=count, self_cpu_time_total=host, cpu_time_total=host,
                self_device_time_total=device, device_time_total=device,
            )  # fmt: skip

        table = operation_table(
            [
                each("store", DeviceType.CPU, 10, 0),
                each("store", DeviceType.CUDA, 0, 9),  # the range's shadow: the kernels in it, once more
                each("aten::index_copy_", DeviceType.CPU, 5, 4),
                each("void index_copy<float>", DeviceType.CUDA, 0, 7, count=2),
                each("profiler::_record_function_enter_new", DeviceType.CPU, 99, 0),
            ],
            has_device=True,
        )
        columns = ["name", "kind", "calls", "self_device_us"]
        assert table[columns].values.tolist() == [
            ["void index_copy<float>", "kernel", 2, 7], ["aten::index_copy_", "operation", 1, 4],
            ["store", "range", 1, 0],
        ]  # fmt: skip


TRACE = {
    "file": "a.parquet", "sha256": "", "events": 1, "searches": 1, "recurrent_steps": 1, "geometry": TINY.to_dict(),
    "source": {}, "synthetic": True, "backend": None,
}  # fmt: skip


class TestIndex:
    @pytest.fixture
    def index(self, steps, tmp_path):
        profile = Profiling("new", steps, CacheConfig(TINY), tmp_path).run()
        content = {
            "format": FORMAT, "schema_version": SCHEMA_VERSION, "created": "2026-11-26", "command": ["profile"],
            "trace": TRACE, "settings": {"searches": 1}, "machine": {"cores": 2}, "profiles": [profile.to_dict()],
        }  # fmt: skip
        self.path = tmp_path / INDEX
        self.path.write_text(json.dumps(content, allow_nan=False))
        return json.loads(self.path.read_text())

    def spoil(self, content):
        self.path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(ResultsError) as caught:
            read_profile_index(self.path.parent)
        return str(caught.value)

    def test_is_read_as_it_was_written(self, index):
        assert msgspec.to_builtins(read_profile_index(self.path.parent)) == index

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("command", None), ("command", "profile"), ("trace", None), ("trace.file", 5), ("profiles", {}),
            ("profiles[0]", 5), ("profiles[0].backend", None), ("profiles[0].files", None),
            ("profiles[0].files[0]", "a"), ("profiles[0].files[0].kind", None), ("profiles[0].files[0].path", 5),
            ("profiles[0].files[0].path", "a\0b"), ("profiles[0].files[0].opens_with", None),
            ("profiles[0].files[0].bytes", "5"), ("profiles[0].files[0].bytes", True),
        ],
    )  # fmt: skip
    def test_a_field_that_readers_rely_on(self, index, field, value):
        *path, last = re.findall(r"[a-z_]+|\d+", field)
        inner = index
        for name in path:
            inner = inner[int(name) if name.isdecimal() else name]
        if value is None:
            del inner[last]
        else:
            inner[int(last) if last.isdecimal() else last] = value
        assert f"{INDEX}: " in self.spoil(index)

    def test_has_the_ranges_and_nothing_else_of_the_table(self, index):
        ranges = {each["name"]: each for each in index["profiles"][0]["ranges"]}
        assert set(ranges) == {*KINDS, MODEL, *INFERENCES}
        assert ranges["store"]["calls"] > 0
        assert ranges["store"]["total_cpu_us"] >= ranges["store"]["self_cpu_us"] > 0
        assert ranges["store"]["self_device_us"] is None

    def test_that_is_not_there(self, tmp_path):
        with pytest.raises(ResultsError, match="no such file: give what 'kvbench profile' wrote"):
            read_profile_index(tmp_path / "nowhere")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}'])
    def test_that_is_none(self, index, content):
        assert "give what 'kvbench profile'" in self.spoil(content)

    def test_of_another_version_or_format(self, index):
        assert "a version that this kvbench does not know, 2 (at $.schema_version)" in self.spoil(
            index | {"schema_version": 2}
        )
        assert "a file of another kind, 'kvcache-replay' (at $.format)" in self.spoil(
            index | {"format": "kvcache-replay"}
        )

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "new/../../secret"])
    def test_that_names_files_outside(self, index, name):
        (self.path.parent.parent / "secret").write_text("")
        index["profiles"][0]["files"][0]["path"] = name
        assert "a file outside of the folder" in self.spoil(index)

    def test_whose_file_is_missing(self, index):
        (self.path.parent / "new" / "flame.svg").unlink()
        assert "its file 'new/flame.svg' is missing" in self.spoil(index)
