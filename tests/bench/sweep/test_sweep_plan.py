"""Plans: what is wrong in one is one line, with the file, the key and the choices."""

import pytest
from sweep_plans import cells_in, write_plan
from traces import TINY, synthetic

from kvbench.errors import KvbenchError
from kvbench.sweep.plan import Plan, PlanError, read_plan
from kvcache import BACKENDS, CacheConfig


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "trace: it is missing"),
        ("trace = 3", "trace[0]: "),
        ("trace = []", "trace: the list is empty"),
        ('trace = "no.parquet"', "trace: 'no.parquet' is no file: looked in"),
        ('trace = "none-*.parquet"', "trace: 'none-*.parquet' is no file"),
        ('trace = "tiny.parquet"\nbackends = "new"', "backends: no key of a plan: choose from trace, backend, storage"),
        (
            'trace = "tiny.parquet"\nbackend = "old"',
            "backend: 'old' is not known: choose from legacy, legacy-0.2.0, new",
        ),
        ('trace = "tiny.parquet"\nbackend = [""]', "backend: '' is not known"),
        ('trace = "tiny.parquet"\nbackend = true', "backend: Expected array, got bool"),
        (
            'trace = "tiny.parquet"\nstorage = "disk"',
            "storage: 'disk' is not known: choose from private, reference, slab",
        ),
        ('trace = "tiny.parquet"\neviction = "mru"', "eviction: 'mru' is not known: choose from fifo, lru, priority"),
        (
            'trace = "tiny.parquet"\ndtype = "int8"',
            "dtype: 'int8' is not known: choose from float32, float16, bfloat16",
        ),
        ('trace = "tiny.parquet"\ndevice = "tpu"', "device: 'tpu' is not known: choose from cpu, cuda"),
        ('trace = "tiny.parquet"\ncapacity = ["9/8"]', "capacity: '9/8': a share is at most 1/1"),
        ('trace = "tiny.parquet"\ncapacity = [0]', "capacity: '0': give 'default', 'recorded', N"),
        ('trace = "tiny.parquet"\ncapacity = [3, "3"]', "capacity: '3' is there twice"),
        ('trace = "tiny.parquet"\nrepetitions = -1', "repetitions: "),
        ('trace = "tiny.parquet"\nsearches = 0', "searches: "),
        ('trace = "tiny.parquet"\nsearches = 99999999999', "searches: "),
        ('trace = "tiny.parquet"\nrepeated = 2', "repeated: "),
        ('trace = "tiny.parquet"\nrepeated = nan', "repeated: "),
        ('trace = "tiny.parquet"\ncommit = [""]', "commit: an empty text is none"),
        ("trace = []", "trace: the list is empty: name at least one"),
        (
            'trace = "tiny.parquet"\nbackend = ["legacy", "new:slab"]\nstorage = "paged"',
            "storage: only the backend new has these, and not legacy, new:slab",
        ),
        (
            'trace = "tiny.parquet"\nbackend = "legacy"\neviction = "lru"',
            "eviction: only new backends have these, and not legacy",
        ),
        ("trace = [", "not TOML ("),
        ("trace = " + "[" * 100 + "]" * 100, "nested more than 64 deep"),
    ],
)
def test_a_fault_is_one_line(place, text, said):
    path = write_plan(place, text)
    with pytest.raises(PlanError) as error:
        read_plan(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file(tmp_path):
    for name in ("nothing.toml", "."):
        with pytest.raises(PlanError, match=r"no such file|cannot be read"):
            read_plan(tmp_path / name)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match="not TOML"):
        read_plan(tmp_path / "binary.toml")


def test_traces_are_beside_the_plan_or_in_this_folder_and_each_once(place, monkeypatch):
    (place / "plans").mkdir()
    synthetic(place / "plans" / "other.parquet")
    monkeypatch.chdir(place)
    found = read_plan(write_plan(place / "plans", 'trace = ["*.parquet", "tiny.parquet", "other.parquet"]')).trace
    assert list(found) == [str(place / "plans" / "other.parquet"), str(place / "tiny.parquet")]


def test_defaults_are_those_of_a_replay(place):
    plan = read_plan(write_plan(place, 'trace = "tiny.parquet"'))
    assert plan == Plan(trace=plan.trace)
    config = cells_in(place, 'trace = "tiny.parquet"')[1].settings
    assert (plan.backend, plan.capacity) == (("legacy", "new"), ("default",))
    assert config["eviction"] == plan.eviction[0] == CacheConfig(TINY).eviction_strategy


def test_everything_is_crossed_and_legacy_only_with_what_it_has(place):
    cells = cells_in(place)
    assert len(cells) == 2 * (1 + 3 * 2)
    assert len({each.id for each in cells}) == len(cells)
    assert {each.cache for each in cells} == {"legacy", "new:private", "new:slab", "new:paged"} <= BACKENDS.keys()
    assert {(each.storage, each.eviction) for each in cells if each.backend == "legacy"} == {(None, None)}


def test_a_storage_in_a_backends_name_is_its_storage(place):
    text = 'trace = "tiny.parquet"\nbackend = ["new:slab", "new"]\nstorage = ["slab", "paged-exact"]'
    cells = cells_in(place, text)
    assert [(each.backend, each.storage) for each in cells] == [("new", "slab"), ("new", "paged-exact")]


@pytest.mark.parametrize(
    "change",
    ["dtype = 'float16'", "searches = 2", "repetitions = 1", "counted_searches = 1", "device = 'cuda'", "capacity = 7"],
)
def test_a_parameter_changes_the_names_of_all_cells(place, change):
    text = 'trace = "tiny.parquet"\nbackend = "new"'
    assert not {each.id for each in cells_in(place, text)} & {each.id for each in cells_in(place, f"{text}\n{change}")}


def test_a_cells_name_is_of_the_traces_content_and_not_of_its_place(place):
    text = 'trace = "tiny.parquet"\nbackend = "new"'
    (cell,) = cells_in(place, text)
    (place / "moved").mkdir()
    (place / "tiny.parquet").rename(place / "moved" / "tiny.parquet")
    (moved,) = cells_in(place / "moved", text)
    assert moved.id == cell.id
    synthetic(place / "tiny.parquet", seed=1)
    assert cells_in(place, text)[0].id != cell.id


def test_a_size_that_no_cache_of_the_trace_can_have(place):
    with pytest.raises(KvbenchError, match=r"tiny.parquet at --capacity recur=1B: recur_pool_bytes is 1"):
        cells_in(place, 'trace = "tiny.parquet"\ncapacity = "recur=1B"')
