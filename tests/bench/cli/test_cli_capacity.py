"""``kvbench capacity``: its counts are those of ``kvbench replay``, its file, its words, its picture, its faults."""

import json
import re
from dataclasses import replace

import msgspec
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from traces import TINY, synthetic

from kvbench.capacity.curves import BOUNDS, POLICIES, STRATEGIES
from kvbench.cli import main
from kvbench.cli.capacity_table import answers
from kvbench.report.capacity_picture import draw_curves
from kvbench.results.capacity import CapacityResults
from kvbench.results.decode import read_json

OUTCOMES = ("hit", "context_mismatch", "stale_hit", "miss")
BACKENDS = {"entries": "new:slab", "pages": "new:paged"}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "tiny.parquet"
    return synthetic(path, searches=4, episode_length=8, transpositions=0.3, clear_ended=True)


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def measured(tmp_path, trace, *arguments):
    """Runs it: what it printed, and its file."""
    file = tmp_path / "capacity.json"
    result = invoke("capacity", trace, *arguments, "--json", file)
    assert result.exit_code == 0, result.output
    return result.output, read_json(file, CapacityResults, "kvbench capacity")


def replayed(tmp_path, trace, capacity, backend, *arguments):
    """What a replay whose contents are checked counts."""
    file = tmp_path / "replay.json"
    given = ["--repetitions", 0, "--counted-searches", 1, "--backend", backend, "--capacity", capacity]
    result = invoke("replay", trace, *given, *arguments, "--json", file)
    assert result.exit_code == 0, result.output
    ((one,),) = [each["backends"] for each in json.loads(file.read_text())["replays"]]
    return [one["outcomes"]["total"][each] for each in OUTCOMES]


@pytest.mark.parametrize("pool", ["recur", "init"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_its_counts_are_those_of_replays(tmp_path, trace, pool, dtype):
    slots = 3
    given = ["--pool", pool, "--capacity", f"{pool}={slots}", "--dtype", dtype]
    # The policy for search trees uses all that a trace says: depths, visits, and the header's number of actions.
    _, results = measured(tmp_path, trace, *given, "--policy", "lru", "--policy", "tree", "--policy", "legacy")
    assert {(each.policy, each.unit) for each in results.points} == {
        ("lru", "entries"), ("lru", "pages"), ("tree", "entries"), ("tree", "pages"), ("legacy", "entries"),
    }  # fmt: skip
    for point in results.points:
        # --capacity is of each environment's init pool, the file's bytes are of all.
        budget = point.bytes // (TINY.env_num if pool == "init" else 1)
        capacity = f"{pool}={budget}B" if point.unit == "pages" else f"{pool}={slots}"
        backend = "legacy" if point.policy == "legacy" else BACKENDS[point.unit]
        eviction = [] if point.policy == "legacy" else ["--eviction", point.policy]
        found = replayed(tmp_path, trace, capacity, backend, *eviction, "--dtype", dtype)
        assert [getattr(point, each) for each in OUTCOMES] == found, point
        assert point.lookups == sum(found)


def test_a_size_in_bytes_is_that_of_the_full_entries_in_it(tmp_path, trace):
    entry = TINY.entry_bytes()
    _, by_bytes = measured(tmp_path, trace, "--policy", "fifo", "--capacity", f"recur={3 * entry + 1}B")
    _, by_slots = measured(tmp_path, trace, "--policy", "fifo", "--capacity", "3")
    assert by_bytes.points == by_slots.points


def test_the_table_and_the_words_are_the_file(tmp_path, trace):
    output, results = measured(tmp_path, trace, "--sizes", 3, "--policy", "lru", "--policy", "belady")
    cells = [re.split(r"  +", line.strip()) for line in output.splitlines()]
    for point in results.points:
        if point.policy == "lru":
            assert any(
                row[:2] == [f"{point.size:,}", f"{point.bytes / 1e6:,.2f}"] and f"{100 * point.rates['hit']:.2f}" in row
                for row in cells
            )
    entries, pages = results.smallest
    assert f"is {entries.size} slots ({entries.bytes / 1e6:,.2f} MB), with lru." in output
    assert f"is {pages.bytes / 1e6:,.2f} MB of pages, with lru." in output
    assert f"needs {results.unlimited.size} slots" in output
    assert "Sampled" not in output
    assert "stale hit" not in output  # all zero without legacy


def test_the_answer_names_all_that_need_least_and_the_default(tmp_path, trace):
    _, results = measured(tmp_path, trace, "--sizes", 2, "--policy", "fifo", "--policy", "sieve", "--policy", "tree")
    sizes = {"fifo": 7, "sieve": 7, "tree": 9}
    slots = [each for each in results.smallest if each.unit == "entries"]
    slots = [msgspec.structs.replace(each, size=sizes[each.policy], bytes=sizes[each.policy] * 1000) for each in slots]
    _, smallest, default = answers(msgspec.structs.replace(results, smallest=slots))
    assert smallest == "The smallest pool within 1 % of unlimited is 7 slots (0.01 MB), with fifo or sieve."
    assert default == "With tree, the default of small pools, it is 9 slots (0.01 MB)."
    assert not [said for said in answers(msgspec.structs.replace(results, smallest=slots[:2])) if "default" in said]


def test_by_default_every_policy_and_bound_is_there(tmp_path, trace):
    _, results = measured(tmp_path, trace, "--sizes", 2)
    assert [each.policy for each in results.points if each.unit == "entries"][::2] == list(POLICIES)
    assert [each.policy for each in results.points if each.unit == "pages"][::2] == [*STRATEGIES, *BOUNDS]


def test_a_sample_says_its_error(tmp_path):
    path = synthetic(tmp_path / "long.parquet", searches=60)
    output, results = measured(tmp_path, path, "--sizes", 2, "--policy", "fifo", "--sample", 500)
    followed = results.sampled.followed
    assert (followed, results.sampled.total, results.sampled.unit) == (12, 60, "searches")
    widest = max(error for each in results.points for error in each.errors.values())
    assert 0 < widest < 0.1
    assert f"{followed} of 60 searches were followed" in output
    assert f"is off by more than {100 * widest:.2f} points." in output
    _, exact = measured(tmp_path, path, "--sizes", 2, "--policy", "fifo", "--sample", 0)
    assert exact.sampled is None
    assert exact.points[0].lookups == results.points[0].lookups


def test_a_trace_that_cannot_be_sampled_is_followed_whole_and_says_why(tmp_path):
    path = synthetic(tmp_path / "one.parquet", searches=1)
    result = invoke("capacity", path, "--policy", "fifo", "--sizes", 1, "--sample", 5)
    assert "followed, and not a sample: it never clears the recurrent pool" in result.output


def test_the_picture(tmp_path, trace):
    picture = tmp_path / "curves.svg"
    given = ["--policy", "fifo", "--policy", "legacy", "--policy", "belady", "--picture", picture]
    result = invoke("capacity", trace, "--sizes", 2, *given)
    assert result.exit_code == 0, result.output
    text = picture.read_text()
    for label in ("Full entries", "Pages of one token", "legacy, stale hits", "belady", "hits, % of lookups"):
        assert label in text


def test_all_bounds_are_black(tmp_path, trace):
    _, results = measured(tmp_path, trace, "--sizes", 2)
    axes = Figure().subplots()
    draw_curves(axes, [each for each in results.points if each.unit == "pages"])
    black = {line.get_label() for line in axes.lines if line.get_color() == "black"}
    assert black == set(BOUNDS)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--policy", "mru"], "'mru' is not one of 'fifo'"),
        (["--capacity", "init=3"], "--capacity init=3: it gives no size of the recur pool"),
        (["--capacity", "7B"], "--capacity 7B: one entry takes"),
        (["--capacity", "none"], "'none': give 'default'"),
        (["--sizes", "0"], "0 is not in the range"),
        (["--searches", "0"], "0 is not in the range"),
        (["--picture", "curves.txt"], "give a name that ends with"),
    ],
)
def test_faults_are_one_line(trace, given, fault):
    result = invoke("capacity", trace, *given)
    assert result.exit_code == 2
    assert fault in result.output
    assert "Traceback" not in result.output


def test_no_trace(tmp_path):
    result = invoke("capacity", tmp_path / "none.parquet")
    assert result.exit_code == 1
    assert "none.parquet: no such file" in result.output


def test_a_context_that_keeps_no_past_is_refused(tmp_path):
    path = synthetic(tmp_path / "short.parquet", replace(TINY, context_length=3))
    result = invoke("capacity", path)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].endswith("contexts of 3 tokens keep no past: there is nothing to size")


def test_one_slot_is_no_plural_and_init_pools_are_several(tmp_path, trace):
    output, results = measured(tmp_path, trace, "--pool", "init", "--sizes", 1, "--policy", "fifo")
    assert "Unlimited, the init pools of this trace need " in output
    assert results.smallest[0].size == 1
    assert "is 1 slot (" in output
