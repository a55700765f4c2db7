"""Which compiled parts the library under test has and uses: seen by the interpreter, in the process that measures."""

import sys

import pytest
from gates import compiled_parts, conftest

import kvcache
from kvcache.kernels import choose
from kvcache.storage import page_arrays, paged
from kvcache.world_model import tree, tree_arrays

ALL = {
    "kvcache._slots": "claim in lru",
    "kvcache.eviction._tree": "victim in tree",
    "kvcache.kernels._cpu_kernels": "gather in new:slab",
    "kvcache.storage._page_arrays": "place in new:paged",
    "kvcache.world_model._tree_arrays": "select in a search",
}


@pytest.fixture(scope="module", autouse=True)
def compiled():
    if not kvcache.build_info().compiled:
        pytest.skip("kvcache is not compiled")


@pytest.fixture(scope="module")
def parts():
    return compiled_parts.compiled_parts()


def now():
    """As another process would find it."""
    return compiled_parts.compiled_parts.__wrapped__()


@pytest.mark.parametrize(("module", "use"), ALL.items())
def test_all_are_used(parts, module, use):
    assert {"built", "imported", use, f"has {use.partition(' ')[0]}"} <= set(parts[module])
    assert set(parts) >= set(ALL)


def fall_back_in_slots(patch):
    patch.setattr("kvcache.slots._Compiled", None)


def fall_back_in_trees_that_evict(patch):
    patch.setattr("kvcache.eviction.compiled._Compiled", None)


def fall_back_in_kernels(patch):
    patch.setattr(choose, "torch", type("Torch", (), {"device": lambda given: type("Device", (), {"type": "other"})}))


def fall_back_in_pages(patch):
    patch.setattr(paged, "arrays", page_arrays)


def fall_back_in_trees(patch):
    patch.setattr(tree, "arrays", tree_arrays)


@pytest.mark.parametrize(
    ("fall_back", "module"),
    list(
        zip(
            [
                fall_back_in_slots,
                fall_back_in_trees_that_evict,
                fall_back_in_kernels,
                fall_back_in_pages,
                fall_back_in_trees,
            ],
            ALL,
            strict=True,
        )
    ),
)
def test_a_fallback_at_run_time_is_no_use(monkeypatch, parts, fall_back, module):
    fall_back(monkeypatch)
    found = now()
    assert {"built", "imported"} <= set(found[module])
    assert ALL[module] in set(parts[module]) - set(found[module])
    assert all(set(found[other]) == set(parts[other]) for other in ALL if other != module)


def test_a_module_that_nobody_imports_is_only_built(monkeypatch, tmp_path):
    (tmp_path / "kvcache" / "deep").mkdir(parents=True)
    (tmp_path / "kvcache" / "deep" / "_fast.cpython-311-x86_64-linux-gnu.so").touch()
    monkeypatch.setattr(kvcache, "__file__", str(tmp_path / "kvcache" / "__init__.py"))
    suffix = ".cpython-311-x86_64-linux-gnu.so"
    monkeypatch.setattr(compiled_parts, "EXTENSION_SUFFIXES", [suffix])
    monkeypatch.setattr(compiled_parts, "_workloads", list)
    assert now() == {"kvcache.deep._fast": ["built"]}


def test_a_call_that_raises_is_no_use():
    def fails():
        sys.intern("called")
        sys.intern(b"not a text")

    assert compiled_parts._returned(fails, {"sys"}) >= {("sys", "intern")}
    assert ("sys", "intern") not in compiled_parts._returned(lambda: sys.intern(b"not a text"), {"sys"})


class Config:
    """Of a pytest run: its options."""

    def __init__(self, **options):
        self.options = {"gate_library": None, "gate_other_parts": False, **options}

    def getoption(self, name):
        return self.options[name.strip("-").replace("-", "_")]


class TestTheLibraryThatWasNamed:
    def start(self, **options):
        conftest.pytest_sessionstart(type("Session", (), {"config": Config(**options)}))

    def test_another_one_is_refused(self, monkeypatch, tmp_path):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        self.start()
        with pytest.raises(pytest.UsageError, match=f"{tmp_path} was named, but .*kvcache would be measured"):
            self.start(gate_library=str(tmp_path))

    def test_the_first_of_pythonpath_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/none:{tmp_path}/base")
        self.start()
        (tmp_path / "base" / "kvcache").mkdir(parents=True)
        with pytest.raises(pytest.UsageError, match=f"{tmp_path}/base was named"):
            self.start()


class TestTheSavedSide:
    def compare(self, saved, **options):
        conftest.pytest_benchmark_compare_machine_info(Config(**options), None, {}, {"commit_info": saved})

    def test_one_with_the_same_parts_is_compared(self, parts):
        self.compare({"compiled": parts})

    @pytest.mark.parametrize("module", [*ALL, None])
    def test_one_that_lacks_a_part_is_refused(self, parts, module):
        left = {name: ["built", "imported"] if name == module else uses for name, uses in parts.items()}
        saved = {"library": "/base/kvcache/__init__.py", "compiled": left} if module else {}
        with pytest.raises(pytest.UsageError, match=r"uses other compiled parts than this one: .*gate --plain"):
            self.compare(saved)
        self.compare(saved, gate_other_parts=True)
