"""``kvbench replay``: tables, JSON, capacities, devices that are not there, and broken caches."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from kvbench.cli import main
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.replay.drive import STEP_OPERATIONS
from kvbench.replay.settings import capacity_of_trace, parse_capacity
from kvbench.results.replay import Capacity
from kvcache import registry
from kvcache.geometry import Geometry
from kvcache.manager import KVCacheManager

COMMITTED = Path(__file__).parents[3] / "benchmarks" / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"
TINY = Geometry("tiny", 2, 2, 16, 8, 2, 6, "absolute")


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "tiny.parquet"
    for _ in write_synthetic_trace(path, SyntheticSearch(TINY, searches=4, seed=0, transpositions=0.2)):
        pass
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def replayed(tmp_path, *arguments):
    """Runs a replay: its output, and its JSON read strictly."""
    file = tmp_path / "out" / "replay.json"
    result = invoke(*arguments, "--json", file)
    assert result.exit_code == 0, result.output

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return result, json.loads(file.read_text(), parse_constant=refuse)


def row(output, label):
    """The cells beside a label of the table."""
    found = re.search(rf"^ *{re.escape(label)}  +(.*?) *$", output, re.MULTILINE)
    assert found, f"no row {label!r} in:\n{output}"
    return re.split(r"  +", found[1])


def test_the_table_shows_the_numbers_of_the_json(tmp_path, trace):
    result, numbers = replayed(tmp_path, trace, "--repetitions", 0, "--capacity", 3)
    (one,) = numbers["replays"]
    legacy, new = one["backends"]
    assert (legacy["name"], new["name"]) == ("legacy", "new")
    output = result.stdout
    assert output.startswith("tiny.parquet (synthetic, geometry tiny) on cpu\n")
    assert re.search(r"^ +legacy +new *$", output, re.MULTILINE)
    for label, name in (
        ("hit, %", "hit_rate"),
        ("stale hit, %", "stale_hit_rate"),
        ("context mismatch, %", "context_mismatch_rate"),
        ("miss, %", "miss_rate"),
        ("wrong content, %", "wrong_content_rate"),
    ):
        assert row(output, label) == [f"{100 * each['outcomes']['total'][name]:.2f}" for each in (legacy, new)]
    assert row(output, "lookups") == [f"{each['outcomes']['total']['lookups']:,}" for each in (legacy, new)]
    for label, name in (
        ("tensor operations", "tensor_ops"),
        ("bytes copied", "bytes_copied"),
        ("allocations", "allocations"),
        ("synchronisations", "synchronisations"),
    ):
        medians = [each["counts_per_recurrent_step_median"][name] for each in (legacy, new)]
        assert row(output, label) == [f"{median:,.0f}" for median in medians]
    assert row(output, "together") == [f"{sum(each['bytes_reserved'].values()):,}" for each in (legacy, new)]
    assert legacy["outcomes"]["total"]["stale_hit"] > 0
    assert new["outcomes"]["total"]["stale_hit"] == 0
    assert new["outcomes"]["total"]["miss"] > 0


def test_the_json_says_what_was_done(tmp_path, trace):
    _, numbers = replayed(tmp_path, trace, "--repetitions", 0, "--searches", 2, "--dtype", "bfloat16")
    assert numbers["format"] == "kvcache-replay"
    assert numbers["settings"] == {
        "repetitions": 0, "searches": 2, "threads": 1, "dtype": "bfloat16", "eviction": "auto",
    }  # fmt: skip
    assert numbers["machines"]["cpu"]["torch_version"] == torch.__version__
    assert numbers["not_measured"] == []
    (one,) = numbers["replays"]
    assert one["trace"]["file"] == "tiny.parquet"
    assert one["trace"]["synthetic"] is True
    assert one["trace"]["searches"] == 2
    assert one["trace"]["recurrent_steps"] == 2 * TINY.num_simulations
    assert one["trace"]["geometry"] == TINY.to_dict()
    assert one["baseline"] == "legacy"
    assert one["device"] == "cpu"


def test_without_repetitions_nothing_is_timed(tmp_path, trace):
    result, numbers = replayed(tmp_path, trace, "--repetitions", 0)
    assert "latency" not in result.stdout
    assert "times faster" not in result.stdout
    (one,) = numbers["replays"]
    assert one["baseline_over_backend"] == {"legacy": None, "new": None}
    assert all(each["latency_us"] is None for each in one["backends"])


def test_the_last_lines_of_each_table_are_its_sentences(tmp_path, trace):
    pools = "--capacity", "default", "--capacity", "recur=2"
    result = invoke(trace, "--repetitions", 1, *pools, "--picture", tmp_path / "a.png")
    said = [line for line in result.stdout.splitlines() if line.startswith(("default pools: ", "recur=2: "))]
    assert [line.partition(":")[0] for line in said] == ["default pools", "recur=2"]
    assert result.stdout.rstrip().endswith(said[-1])
    assert result.stderr == f"picture: {tmp_path / 'a.png'}\n", "a bar leaves no lines where there is no terminal"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_no_format_is_refused_before_anything_is_measured(tmp_path, trace):
    result = invoke(trace, "--picture", tmp_path / "a.jpeg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a.jpeg: give a name that ends with .png, .svg or .pdf" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_repetitions_times_and_ratios_are_shown(tmp_path, trace):
    result, numbers = replayed(tmp_path, trace, "--repetitions", 2, "--backend", "new", "--backend", "legacy")
    (one,) = numbers["replays"]
    assert one["baseline"] == "new"
    assert one["baseline_over_backend"]["new"]["median"] == 1.0
    ratio = one["baseline_over_backend"]["legacy"]
    shown = f"{ratio['median']:.2f} ({ratio['p25']:.2f} to {ratio['p75']:.2f})"
    assert row(result.stdout, "median (quartiles)") == ["1.00 (1.00 to 1.00)", shown]
    assert "recurrent step, times faster than new" in result.stdout
    steps = 4 * TINY.num_simulations
    for each, cell in zip(one["backends"], row(result.stdout, "recurrent step"), strict=True):
        latency = each["latency_us"]["recurrent_step"]
        assert latency["samples"] == 2 * steps
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert cell == " / ".join(f"{latency[name]:.1f}" for name in ("p50", "p95", "p99"))
        assert each["latency_us"]["clear"]["samples"] == 2 * (4 + 1)  # the last search is cleared, too
        assert 0 < each["clear_share"] < 1
    shares = [f"{100 * each['clear_share']:.2f}" for each in one["backends"]]
    assert row(result.stdout, "clearing, %") == shares


def test_the_forward_over_the_batches_is_a_pass_of_its_own(tmp_path, trace):
    result, numbers = replayed(tmp_path, trace, "--repetitions", 0, "--forward")
    (one,) = numbers["replays"]
    found = one["forward_over_baseline"]
    assert (found["legacy"]["median"], found["legacy"]["strided_bytes"]) == (1.0, 0)
    assert "forward over the batch, times that over legacy's" in result.stdout
    shown = [f"{each['median']:.2f} ({each['p25']:.2f} to {each['p75']:.2f})" for each in found.values()]
    assert row(result.stdout, "median (quartiles)") == shown
    assert row(result.stdout, "strided bytes") == ["0", "0"]
    assert replayed(tmp_path, trace, "--repetitions", 0)[1]["replays"][0]["forward_over_baseline"] is None


def test_operations_and_memory_can_be_counted_in_some_searches_only(tmp_path, trace):
    whole, everything = replayed(tmp_path, trace, "--repetitions", 1)
    result, numbers = replayed(tmp_path, trace, "--repetitions", 1, "--counted-searches", 1)
    _, first = replayed(tmp_path, trace, "--repetitions", 1, "--searches", 1)
    (one,), (of_all,), (of_first,) = (each["replays"] for each in (numbers, everything, first))
    assert (one["counted_searches"], of_all["counted_searches"], of_first["counted_searches"]) == (1, 4, 1)
    for each, all_of_it, alone in zip(one["backends"], of_all["backends"], of_first["backends"], strict=True):
        for name in ("counts_per_recurrent_step_median", "peak_bytes"):
            assert each[name] == alone[name]
        counted, alone_counted = ({key: one["counts"][key] for key in STEP_OPERATIONS} for one in (each, alone))
        assert counted == alone_counted
        assert each["counts"] != all_of_it["counts"]
        assert each["outcomes"] == all_of_it["outcomes"]
        assert each["timeline"] == all_of_it["timeline"]
    assert "in a recurrent step, in the first search, median" in result.stdout
    assert "peak memory, batches included, in the first search" in result.stdout
    assert "in the first" not in whole.stdout


def test_several_traces_and_capacities_are_all_replayed(tmp_path, trace):
    other = tmp_path / "other.parquet"
    other.write_bytes(trace.read_bytes())
    _, numbers = replayed(
        tmp_path, trace, other, "--repetitions", 0, "--capacity", "default", "--capacity", "recur=2",
        "--backend", "new",
    )  # fmt: skip
    done = [(one["trace"]["file"], one["capacity"]["label"], one["capacity"]["recur"]) for one in numbers["replays"]]
    assert done == [
        (name, label, slots)
        for name in ("tiny.parquet", "other.parquet")
        for label, slots in (("default", None), ("recur=2", 2))
    ]


class TestCapacity:
    @pytest.mark.parametrize(
        ("text", "init", "recur"),
        [
            ("7", 7, 7),
            ("init=7", 7, None),
            ("recur=7", None, 7),
            ("init=2,recur=400", 2, 400),
            ("recur=400,init=2", 2, 400),
            ("5,recur=9", 5, 9),
            ("default", None, None),
        ],
    )
    def test_forms(self, text, init, recur):
        capacity = parse_capacity(text)
        assert (capacity.label, capacity.init, capacity.recur) == (text, init, recur)

    @pytest.mark.parametrize(
        ("text", "init", "recur"),
        [
            ("50MB", 50_000_000, 50_000_000),
            ("recur=3KiB", None, 3072),
            ("init=7B,recur=2GiB", 7, 2 << 30),
            ("init=7KB,recur=9", 7000, None),
        ],
    )
    def test_bytes_have_a_unit(self, text, init, recur):
        capacity = parse_capacity(text)
        assert (capacity.init_bytes, capacity.recur_bytes) == (init, recur)
        assert (capacity.init, capacity.recur) == (None, 9 if "=9" in text else None)

    @pytest.mark.parametrize(
        ("text", "sizes"),
        [
            ("recur=1/8", {"recur": 1}),  # of 12 slots
            ("recur=1/2,init=1/4", {"recur": 6, "init": 64}),
            ("1/2", {"recur": 6, "init": 128}),
            ("recur=1/2B", {"recur_bytes": 6 * TINY.entry_bytes()}),
            ("recur=1/64", {"recur": 1}),
            ("recur=1/2,init=7KB", {"recur": 6, "init_bytes": 7000}),
        ],
    )
    def test_shares_are_of_the_trace(self, text, sizes):
        from traces import header

        asked = parse_capacity(text)
        assert asked.label == text
        found = capacity_of_trace(asked, header(), "float32")
        assert found == Capacity(text, **sizes)
        halved = capacity_of_trace(asked, header(), "float16")
        assert (halved.recur, halved.recur_bytes) == (found.recur, found.recur_bytes and found.recur_bytes // 2)

    def test_bytes_decide_the_memory(self, tmp_path, trace):
        entry = TINY.entry_bytes()
        _, numbers = replayed(
            tmp_path, trace, "--repetitions", 0, "--capacity", f"recur={3 * entry + 1}B", "--backend", "legacy",
            "--backend", "new:private", "--backend", "new:slab", "--backend", "new:paged",
        )  # fmt: skip
        backends = {each["name"]: each for each in numbers["replays"][0]["backends"]}
        assert [each["bytes_reserved"]["recur"] for each in backends.values()][:3] == [3 * entry] * 3
        assert backends["new:paged"]["bytes_reserved"]["recur"] <= 3 * entry
        found = {name: each["outcomes"]["total"]["hit"] for name, each in backends.items()}
        assert found["new:paged"] > found["new:slab"] == found["new:private"]

    def test_bytes_too_few_for_an_entry(self, trace):
        result = invoke(trace, "--repetitions", 0, "--capacity", "recur=10B")
        assert result.exit_code == 2
        assert "recur_pool_bytes is 10: one entry takes" in result.stderr

    @pytest.mark.parametrize("text", ["recur=1,recur=2", "init=1,init=1MB", "3,4"])
    def test_a_pool_given_twice(self, trace, text):
        result = invoke(trace, "--capacity", text)
        assert result.exit_code == 2
        assert "twice" in result.stderr

    @pytest.mark.parametrize(
        "text",
        [
            "0",
            "-1",
            "",
            "many",
            "init=",
            "init=0",
            "wm=3",
            "init=3;recur=4",
            "3,",
            "1.5",
            "0MB",
            "MB",
            "3mb",
            "1.5MB",
            "1/0",
            "/8",
            "1/8MB",
            "1/-8",
        ],
    )
    def test_bad_forms_are_refused_with_the_good_ones(self, trace, text):
        result = invoke(trace, "--capacity", text)
        assert result.exit_code == 2
        assert "--capacity" in result.stderr
        assert "'init=N,recur=M'" in result.stderr
        assert result.stdout == ""

    @pytest.mark.parametrize("text", ["²", "٣"])
    def test_digits_that_are_no_numbers_here(self, trace, text):
        """Either a number, as int() reads it, or refused: no traceback."""
        result = invoke(trace, "--capacity", text, "--repetitions", 0, "--searches", 1)
        assert result.exit_code in (0, 2)

    def test_recorded_takes_the_recorded_pools(self, tmp_path):
        result, numbers = replayed(
            tmp_path, COMMITTED, "--repetitions", 0, "--searches", 2, "--capacity", "recorded", "--backend",
            "legacy-0.2.0",
        )  # fmt: skip
        (one,) = numbers["replays"]
        assert one["capacity"] == {
            "label": "recorded", "init": 2, "recur": 400, "init_bytes": None, "recur_bytes": None,
        }  # fmt: skip
        assert "init 2, recur 400" in result.stdout
        outcomes = one["backends"][0]["outcomes"]
        assert outcomes["disagreements_with_recorded_run"] == 0
        assert outcomes["recorded_lookups"] == outcomes["total"]["hit"] == outcomes["total"]["lookups"]
        assert row(result.stdout, "found or not, unlike the recorded run") == ["0"]

    def test_slots_decide_the_memory(self, tmp_path, trace):
        backends = [option for name in ("legacy", "new:private", "new:slab") for option in ("--backend", name)]
        _, numbers = replayed(tmp_path, trace, "--repetitions", 0, "--capacity", "init=1,recur=5", *backends)
        for backend in numbers["replays"][0]["backends"]:
            assert backend["bytes_reserved"]["init"] == TINY.env_num * TINY.entry_bytes()
            assert backend["bytes_reserved"]["recur"] == 5 * TINY.entry_bytes()

    @pytest.mark.parametrize("eviction", ["fifo", "lru", "priority", "tree"])
    def test_eviction_strategies(self, tmp_path, trace, eviction):
        _, numbers = replayed(tmp_path, trace, "--repetitions", 0, "--capacity", 4, "--eviction", eviction)
        assert numbers["settings"]["eviction"] == eviction
        assert numbers["replays"][0]["backends"][1]["evictions"]["recur"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
class TestWithoutCuda:
    def test_cuda_alone_is_skipped_by_name(self, tmp_path, trace):
        result, numbers = replayed(tmp_path, trace, "--device", "cuda", "--repetitions", 0)
        assert "cuda: skipped: no CUDA device" in result.stderr
        assert numbers["not_measured"] == [{"device": "cuda", "reason": "skipped: no CUDA device"}]
        assert numbers["replays"] == []
        assert numbers["machines"] == {}

    def test_the_cpu_is_measured_all_the_same(self, tmp_path, trace):
        _, numbers = replayed(tmp_path, trace, "--device", "cuda", "--device", "cpu", "--repetitions", 0)
        assert [one["device"] for one in numbers["replays"]] == ["cpu"]
        assert [one["device"] for one in numbers["not_measured"]] == ["cuda"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            (["--backend", "new", "--backend", "new"], "a --backend is given twice: new, new"),
            (["--backend", "newer"], "'newer' is not one of"),
            (["--device", "tpu"], "'tpu' is not one of"),
            (["--dtype", "int8"], "'int8' is not one of"),
            (["--eviction", "random"], "'random' is not one of"),
            (["--searches", "0"], "--searches"),
            (["--repetitions", "-1"], "--repetitions"),
            (["--threads", "0"], "--threads"),
        ],
    )
    def test_bad_options(self, trace, arguments, fault):
        result = invoke(trace, *arguments)
        assert result.exit_code == 2
        assert fault in result.stderr
        assert result.stdout == ""

    def test_no_trace(self):
        assert invoke().exit_code == 2

    def test_a_missing_trace_leaves_no_json(self, tmp_path):
        result = invoke(tmp_path / "absent", "--json", tmp_path / "out.json")
        assert (result.exit_code, result.stderr) == (1, f"Error: {tmp_path / 'absent'}: no such file\n")
        assert list(tmp_path.iterdir()) == []

    def test_a_trace_without_events(self, tmp_path):
        from kvbench.trace.schema import TraceHeader
        from kvbench.trace.writer import TraceWriter

        path = tmp_path / "empty.parquet"
        TraceWriter(path, TraceHeader.create(TINY, {}, synthetic=True)).close()
        result = invoke(path)
        assert result.exit_code == 1
        assert result.stderr == f"Error: {path}: it has no events: there is nothing to replay\n"

    def test_json_into_a_path_below_a_file(self, tmp_path, trace):
        (tmp_path / "file").write_text("precious")
        result = invoke(trace, "--repetitions", 0, "--searches", 1, "--json", tmp_path / "file" / "sub" / "out.json")
        assert result.exit_code in (1, 2)
        assert result.stderr.splitlines()[-1].startswith("Error: ")
        assert isinstance(result.exception, SystemExit)
        assert (tmp_path / "file").read_text() == "precious"


class Damaged(KVCacheManager):
    def assemble(self):
        sizes = super().assemble()
        self.keys_values_wm.block[0, 0, 0, 0, -1 if max(sizes) == 8 else max(sizes) - 1, 0] += 1
        return sizes


def test_wrong_content_is_an_error_after_the_numbers_are_written(tmp_path, trace, monkeypatch):
    monkeypatch.setitem(registry.BACKENDS, "new", Damaged)
    file = tmp_path / "out.json"
    result = invoke(trace, "--repetitions", 0, "--json", file)
    assert result.exit_code == 1
    assert "Error: wrong content, the first of each backend:\n  new: search 0, simulation" in result.stderr
    assert "Traceback" not in result.output
    legacy, new = json.loads(file.read_text())["replays"][0]["backends"]
    assert legacy["outcomes"]["faults"] == []
    assert new["outcomes"]["total"]["wrong_content"] > 0


def test_stale_hits_are_no_error(trace):
    result = invoke(trace, "--repetitions", 0, "--capacity", 2, "--backend", "legacy")
    assert result.exit_code == 0
    assert float(row(result.stdout, "stale hit, %")[0]) > 0


def test_help_explains_the_options():
    result = CliRunner().invoke(main, ["replay", "--help"])
    assert result.exit_code == 0
    for name in (
        "--backend",
        "--device",
        "--capacity",
        "--eviction",
        "--dtype",
        "--repetitions",
        "--forward",
        "--searches",
        "--json",
    ):
        assert name in result.stdout
    assert "open-loop" in result.stdout


def test_the_same_replay_gives_the_same_json_in_any_process(tmp_path, trace):
    """Apart from when and how it was called: hash order, above all, has no part in it."""
    results = []
    processes = []
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.json"
        command = [
            sys.executable, "-m", "kvbench", "replay", str(trace), "--repetitions", "0", "--searches", "2",
            "--capacity", "5", "--eviction", "priority", "--json", str(file),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        processes.append((file, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)))
    tables = []
    for file, process in processes:
        tables.append(process.communicate(timeout=120)[0])
        assert process.returncode == 0
        numbers = json.loads(file.read_text())
        assert numbers.pop("created")
        assert numbers.pop("command")
        results.append(json.dumps(numbers))  # order of fields included
    assert results[0] == results[1]
    assert tables[0] == tables[1]


def test_a_bad_trace_is_refused_before_any_other_is_measured(tmp_path, trace, monkeypatch):
    monkeypatch.setattr("kvbench.cli.replay.Replay", lambda *args, **kwargs: pytest.fail("measured already"))
    (tmp_path / "bad.parquet").write_text("no trace")
    result = invoke(trace, tmp_path / "bad.parquet")
    assert result.exit_code == 1
    assert "not a Parquet file" in result.stderr


@pytest.mark.parametrize(("option", "value"), [("backend", "new"), ("device", "cpu"), ("capacity", "5")])
def test_what_is_named_twice_is_not_measured_twice(trace, option, value):
    result = invoke(trace, f"--{option}", value, f"--{option}", value)
    assert result.exit_code == 2
    assert f"a --{option} is given twice" in result.stderr
