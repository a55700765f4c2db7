import gzip
import json

import pytest

from kvbench.profile import chrome_trace
from kvbench.profile.chrome_trace import fold_stacks, format_stacks, read_chrome_trace

HOME = chrome_trace._HOME


def call(name, start, duration, cat="python_function", tid=1):
    """A call of a trace, in microseconds."""
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": start, "dur": duration}


def kind(name, start, duration, **others):
    return call(name, start, duration, "user_annotation", **others)


class TestReading:
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_events_gzipped_or_not(self, tmp_path, pack):
        path = tmp_path / "trace.json"
        path.write_bytes(pack(json.dumps({"traceEvents": [call("a", 0, 1)]}).encode()))
        assert read_chrome_trace(path) == [call("a", 0, 1)]

    @pytest.mark.parametrize(
        "content", [b"", b"[]", b"{}", b"\x1f\x8bno", gzip.compress(b"{}" * 99, mtime=0)[:20], b"\xff\xfe\x00"]
    )
    def test_what_is_no_trace_is_named(self, tmp_path, content):
        path = tmp_path / "trace.json"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"trace\.json: not a trace in Chrome's format"):
            read_chrome_trace(path)


class TestFolding:
    def test_time_is_that_of_a_call_itself_and_calls_alike_are_one(self):
        events = [
            kind("store", 0, 100),
            call("kvcache/pool.py(98): find", 10, 30),
            call("aten::copy_", 12, 5, "cpu_op"),
            call("kvcache/pool.py(98): find", 50, 10),
            kind("store", 200, 1),
        ]
        assert fold_stacks(events, ["store"]) == {
            ("store",): 61_000,
            ("store", "find (kvcache/pool.py:98)"): 35_000,
            ("store", "find (kvcache/pool.py:98)", "aten::copy_"): 5_000,
        }

    def test_what_is_outside_of_the_roots_is_left_out(self):
        events = [
            call("run_step", 0, 100),
            kind("model", 5, 10),
            kind("lookup", 20, 10),
            call("find", 22, 2),
            call("afterwards", 40, 10),
        ]
        assert fold_stacks(events, ["lookup"]) == {("lookup",): 8_000, ("lookup", "find"): 2_000}

    def test_what_records_a_range_is_no_part_of_it(self):
        # A range begins inside of the call that opens it, and ends inside of the one that closes it.
        events = [
            call("torch/autograd/profiler.py(1): __enter__", 0, 10),
            kind("hash", 8, 42),
            call("hash_states", 12, 20),
            call("torch/autograd/profiler.py(2): __exit__", 40, 20),
            call("<built-in method _record_function_exit of object at 0x7f>", 42, 5),
        ]
        assert fold_stacks(events, ["hash"]) == {("hash",): 12_000, ("hash", "hash_states"): 20_000}

    def test_threads_do_not_nest_into_each_other(self):
        events = [kind("store", 0, 100), kind("store", 10, 10, tid=2), call("find", 12, 2, tid=2), call("write", 50, 5)]
        assert fold_stacks(events, ["store"]) == {
            ("store",): 103_000, ("store", "find"): 2_000, ("store", "write"): 5_000,
        }  # fmt: skip

    def test_addresses_and_folders_do_not_keep_calls_apart(self):
        events = [
            kind("store", 0, 10),
            call("<built-in method find of Pool object at 0x7f2a>", 1, 2),
            call("<built-in method find of Pool object at 0x11ff>", 4, 2),
            call(f"{HOME}kvcache/pool.py(9): a;b", 7, 1),
        ]
        assert set(fold_stacks(events, ["store"])) == {
            ("store",), ("store", "<built-in method find of Pool object>"), ("store", "a,b (kvcache/pool.py:9)"),
        }  # fmt: skip

    def test_calls_that_took_no_time_are_left_out(self):
        assert fold_stacks([kind("store", 0, 4), call("find", 0, 4)], ["store"]) == {("store", "find"): 4_000}

    def test_other_kinds_of_events_are_no_calls(self):
        events = [kind("store", 0, 4), {"ph": "i", "name": "x", "ts": 1}, {**call("kernel", 1, 2), "cat": "kernel"}]
        assert fold_stacks(events, ["store"]) == {("store",): 4_000}


def test_folded_stacks_are_lines_with_a_number_behind():
    assert format_stacks({("store", "write"): 5, ("hash",): 12}) == "hash 12\nstore;write 5\n"
