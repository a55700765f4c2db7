"""Curves of imported requests: pools that are asked for every key, or miniatures for a sample of the keys."""

import numpy as np
import pytest
from click.testing import CliRunner

from kvbench.capacity.curves import ENTRIES, Sized
from kvbench.capacity.keyed import KEY_POLICIES, KeyRequests, count_keys
from kvbench.cli import main
from kvbench.requests.pools import PoolSize, RequestPool, replay_requests
from kvbench.requests.reader import RequestReader
from kvbench.results.capacity import CapacityResults
from kvbench.results.decode import read_json

REAL = [each for each in KEY_POLICIES if each not in ("belady", "unbounded")]


def imported(folder, keys):
    """A file of requests for these keys."""
    source, path = folder / "keys.txt", folder / "keys.parquet"
    source.write_text("\n".join(map(str, keys)) + "\n")
    done = CliRunner().invoke(main, ["trace", "import", str(source), "--format", "plain", "-o", str(path)])
    assert done.exit_code == 0, done.output
    return RequestReader(path)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    keys = np.random.default_rng(0).zipf(1.2, 4_000) % 1_500
    return imported(tmp_path_factory.mktemp("requests"), keys.tolist())


@pytest.mark.parametrize("policy", REAL)
def test_hits_are_those_of_real_pools(reader, policy):
    sizes = [1, 3, 50, 700]
    table = count_keys(KeyRequests(reader), [Sized(policy, ENTRIES, sizes)])
    pools = [RequestPool(PoolSize("", slots=size), size, policy) for size in sizes]
    replay_requests(reader, pools)
    assert table["hit"].tolist() == [pool.result(None).hit for pool in pools]
    assert (table["hit"] + table["miss"]).tolist() == [reader.rows] * 4
    assert table["context_mismatch"].isna().all()
    assert not table[["hit_error", "miss_error"]].to_numpy().any()


def test_bounds(tmp_path):
    # Belady with two entries keeps 1 over 2 and 3, and finds 2 again, too: 1 2 3 1 2.
    requests = KeyRequests(imported(tmp_path, [1, 2, 3, 1, 2]))
    table = count_keys(requests, [Sized("belady", ENTRIES, [1, 2]), Sized("unbounded", ENTRIES, [1])])
    assert table["hit"].tolist() == [1, 2, 2]
    assert requests.most_entries == 3


def test_no_pool_passes_the_bounds(reader):
    sizes = [1, 20, 300, 1499]
    table = count_keys(KeyRequests(reader), [Sized(policy, ENTRIES, sizes) for policy in KEY_POLICIES])
    hits = table.pivot(index="size", columns="policy", values="hit")
    for policy in REAL:
        assert (hits[policy] <= hits["belady"]).all()
    assert (hits["belady"] <= hits["unbounded"]).all()


@pytest.mark.parametrize("share", [4, 2])
def test_a_sample_is_as_near_as_it_says(reader, share):
    whole, sampled = KeyRequests(reader), KeyRequests(reader, reader.rows // share)
    assert sampled.share == pytest.approx(1 / share, rel=1e-3)
    assert 0.5 * whole.keys < sampled.most_entries < 2 * whole.keys
    lines = [Sized(policy, ENTRIES, [sampled.least_entries, 900]) for policy in KEY_POLICIES]
    exact, found = count_keys(whole, lines), count_keys(sampled, lines)
    assert found["lookups"].tolist() == exact["lookups"].tolist()
    off = (exact["hit_rate"] - found["hit_rate"]).abs()
    assert (off <= 2 * found["hit_error"]).all()
    assert 0 < off.max() < 0.08
    assert found["hit_error"].max() < 0.15


def test_too_few_keys_are_no_sample(tmp_path):
    requests = KeyRequests(imported(tmp_path, [1, 2, 3] * 50), 20)
    assert requests.share == 1
    assert "keys, which are too few" in requests.cannot_sample
    assert requests.followed == 150


def test_the_command(tmp_path, reader):
    def run(*arguments):
        return CliRunner().invoke(main, ["capacity", str(reader.path), *arguments])

    file, picture = tmp_path / "capacity.json", tmp_path / "capacity.svg"
    done = run("--sizes", "2", "--json", str(file), "--picture", str(picture))
    assert done.exit_code == 0, done.output
    results = read_json(file, CapacityResults, "kvbench capacity")
    assert {each.policy for each in results.points} == set(KEY_POLICIES)
    assert {each.context_mismatch for each in results.points} == {None}
    assert results.pool is results.sampled is results.trace.geometry is None
    least = min(each.size for each in results.smallest)
    named = " or ".join(each.policy for each in results.smallest if each.size == least)
    assert f"within 1 % of unlimited is {least:,} entries, with {named}." in done.output
    assert "Context mismatches are unknown" in done.output
    sampled = run("--sizes", "2", "--policy", "lru", "--sample", "2000")
    assert "of 4,000 requests were followed" in sampled.output


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (["--policy", "legacy"], "--policy legacy: imported requests have fifo"),
        (["--capacity", "50MB"], "give --capacity as entries"),
        (["--sample", "2000", "--capacity", "5"], "--capacity 5: a sample tells of"),
    ],
)
def test_faults_are_one_line(reader, given, fault):
    done = CliRunner().invoke(main, ["capacity", str(reader.path), *given])
    assert done.exit_code == 2
    assert fault in done.output
