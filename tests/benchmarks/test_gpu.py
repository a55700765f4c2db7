"""``tox -e gpu`` on a CPU: what it says without a card, that one part's end ends no other, and each part's own code."""

import configparser
import json
from pathlib import Path

import gpu
import pytest
from gpu_parts import device, models
from gpu_parts.device import Counted, Setting, counted
from gpu_parts.driving import FILLS, Driver, grown
from gpu_parts.own_tests import results

from kvbench.results.decode import read_json
from kvbench.results.gpu import MADE_BY, GpuResults
from kvcache import GEOMETRIES, Scope

TRIAL = Setting("cpu", quick=True)


@pytest.fixture
def one_geometry(monkeypatch):
    """And what is compiled is not: torch's own operations do it."""
    monkeypatch.setattr(device, "_QUICK", ("cartpole",))
    monkeypatch.setattr("kvcache.world_model.steps.BACKEND", "eager")


def rows_of(name):
    return {each.name: each for each in gpu.PARTS[name].run(TRIAL)}


def test_without_a_card_it_says_what_it_would_run(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("skipped: no CUDA device.")
    for name, part in gpu.PARTS.items():
        assert f"  {name} " in said
        assert part.described in said
        assert part.described.endswith(".")


def test_contents_are_legacys_at_every_fill(one_geometry):
    rows = rows_of("contents")
    assert len(rows) == len(TRIAL.dtypes) * len(FILLS) * 3
    assert all(each.holds for each in rows.values())
    for fill in FILLS:
        assert any(f", {fill}, " in name for name in rows)


def test_contents_that_are_not_are_noticed(one_geometry, monkeypatch):
    retrieve = Driver._retrieve

    def spoiled(self, *args):
        retrieve(self, *args)
        if self.name == "new:slab":
            self.backend._batch._view.block.mul_(1.5)

    monkeypatch.setattr(Driver, "_retrieve", spoiled)
    wrong = {name for name, each in rows_of("contents").items() if not each.holds}
    assert wrong == {name for name in wrong if name.endswith("new:slab")} != set()


def test_contexts_have_the_fill_that_is_said():
    geometry = GEOMETRIES["visual-match"]
    driver, sizes = Driver("new:paged", geometry, "cpu", TRIAL.dtypes[0]), {}
    for fill, _, roots in grown([driver], geometry):
        keys = driver.backend.hash_states(roots)
        sizes[fill] = driver.backend.lookup(range(geometry.env_num), keys, Scope.ROOT)
    assert set(sizes) == set(FILLS)
    assert set(sizes["start"]) == {1}
    assert set(sizes["middle"]) == {2 * 40 - 1}
    assert set(sizes["full"]) == {2 * 80 - 1}  # two more, and it slides
    assert set(sizes["sliding"]) == {geometry.slid_size}
    assert len(set(sizes["unequal"])) == geometry.env_num


def test_steps_have_their_share_of_the_clear(one_geometry, monkeypatch):
    clear = Driver.clear

    def slow(driver):
        clear(driver)
        driver.host_ns = driver.device_ns = 4e15

    monkeypatch.setattr(Driver, "clear", slow)
    ratios = [each.value for each in rows_of("steps").values() if each.unit == "times faster"]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-3)


@pytest.mark.parametrize("name", ["steps", "bandwidth", "sliding"])
def test_parts_that_run_on_a_cpu_have_numbers(one_geometry, name):
    rows = rows_of(name)
    assert rows
    assert all(each.value > 0 for each in rows.values())
    if name == "steps":
        assert {label.split(", ")[1] for label in rows} == set(FILLS)
        assert {label.split(", ")[2] for label in rows} == {"host clock", "device clock"}
    if name == "sliding":
        assert all(each.holds for each in rows.values())


@pytest.mark.parametrize(
    "name", ["searches", *(pytest.param(each, marks=pytest.mark.slow) for each in ("counts", "compiled"))]
)
def test_parts_say_what_a_cpu_cannot_run(one_geometry, name):
    rows = rows_of(name)
    for label, each in rows.items():
        if "cuda_graph" in label:
            assert each.reason.startswith("ValueError: cuda_graph=True needs a CUDA device")
        elif name == "counts":
            assert each.reason == "a CPU has no launches and no transfers to count"
        else:
            assert each.value is not None
            assert each.holds is not False
    if name == "compiled":
        assert rows["cartpole, new:paged, compile, compilations"].value == 1
    if name == "searches":
        shares = [each.value for each in rows.values() if each.unit == "% of a search"]
        assert sum(shares) == pytest.approx(100)
        assert min(shares) > 0


@pytest.mark.parametrize("name", ["counts", "searches", "compiled"])
def test_what_fails_on_a_card_is_a_broken_promise(name, monkeypatch):
    def fails(self, *options, **more):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(models, "_model", fails)
    monkeypatch.setattr(models, "_split", lambda setting, geometry: iter(()))
    rows = list(gpu.PARTS[name].run(Setting("cuda", quick=True)))
    assert len(rows) > 3
    for each in rows:
        assert (each.holds, each.wanted) == (False, "runs")
        assert each.reason == "RuntimeError: CUDA error: operation not permitted when stream is capturing"


def test_profiles_are_counted_by_their_events_names():
    names = ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch", "aten::add", "cudaStreamSynchronize"]
    names += ["Memcpy DtoH (Device -> Pageable)", "Memcpy HtoD (Pinned -> Device)", "cudaMemcpyAsync"] * 2
    assert counted(names, 2) == Counted(launches=1.5, to_host=1, to_device=1, synchronisations=0.5)


def test_failing_tests_are_rows_of_their_own():
    report = (
        '<testsuites><testsuite tests="4" skipped="1"><testcase classname="a" name="b"><failure message="wrong&#10;x"/>'
        '</testcase><testcase classname="a" name="c"/></testsuite></testsuites>'
    )
    rows = {each.name: each for each in results(report)}
    assert [rows[name].value for name in ("passed", "skipped", "failed")] == [2, 1, 1]
    assert (rows["a.b"].holds, rows["a.b"].reason) == (False, "wrong")


_FAKE = """
import pathlib, subprocess, sys, time
arguments = sys.argv[1:]
name, path = arguments[arguments.index("--only") + 1], arguments[arguments.index("--rows") + 1]
with open(path, "w") as rows:
    rows.write('{"part": "%s", "name": "one", "value": 1.0, "holds": true}\\n' % name)
    rows.flush()
    if name == "contents":
        rows.write('{"part": "contents", "na')
        sys.exit("RuntimeError: CUDA error: an illegal memory access was encountered")
    if name == "counts":
        rows.flush()
        works = "import sys, time\\nwhile True: open(sys.argv[1], 'a').write('.'); time.sleep(0.02)"
        subprocess.Popen([sys.executable, "-c", works, pathlib.Path(__file__).with_name("works")])
        time.sleep(60)
"""


def test_a_part_that_fails_or_hangs_ends_no_other(monkeypatch, tmp_path, capsys):
    script, path = tmp_path / "fake.py", tmp_path / "folder" / "gpu.json"
    script.write_text(_FAKE)
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setitem(gpu.PARTS, "counts", gpu.PARTS["counts"]._replace(seconds=3))
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(path)]) == 1
    works = script.with_name("works").read_text()
    found = read_json(path, GpuResults, MADE_BY)
    status = {each.name: (each.status, each.reason) for each in found.parts}
    assert status.pop("contents") == ("failed", "RuntimeError: CUDA error: an illegal memory access was encountered")
    assert status.pop("counts") == ("timed out", "after 3 s")
    assert set(status.values()) == {("done", "")}
    assert [each.part for each in found.rows] == list(gpu.PARTS)
    assert (found.device, found.card) == ("cpu", {})
    assert json.loads(path.read_text())["format"] == "kvcache-gpu"
    assert "contents: failed" in capsys.readouterr().out
    assert gpu.main(["--device", "cpu", "--only", "steps"]) == 0
    assert script.with_name("works").read_text() == works != ""  # what a part has started ends with it


def test_parts_have_the_time_that_is_left(monkeypatch):
    assert gpu.BUDGET < 600
    monkeypatch.setattr(gpu, "BUDGET", -1)
    assert gpu.main(["--device", "cpu", "--only", "steps"]) == 1


def test_tox_runs_on_the_card_that_is_meant():
    """tox hides the environment's variables; of several cards another one might be in use."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(Path(gpu.__file__).parents[1] / "tox.ini")
    assert "pass_env" not in tox["testenv:gpu"]
    assert "CUDA_VISIBLE_DEVICES" in tox["testenv"]["pass_env"].split()
