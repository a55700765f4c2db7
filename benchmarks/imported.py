"""Imported traces of 10^5 to 10^7 requests: what each command costs, and whether hits are those of libCacheSim.

``python benchmarks/imported.py`` writes oracleGeneral files of skewed requests, and runs each command in a process of
its own. ``--judge FILE`` asks our pools and libCacheSim's caches for the requests of an imported trace instead.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from scale import measure

from kvbench.requests.pools import PoolSize, RequestPool
from kvbench.requests.reader import RequestReader

ROOT = Path(__file__).resolve().parents[1]
# Their names of our policies.
JUDGES = {"fifo": "FIFO", "lru": "LRU", "s3-fifo": "S3FIFO", "sieve": "Sieve"}
COMMANDS = {
    "import": ["import", "{source}", "--format", "oracle-general", "-o", "{trace}"],
    "check": ["check", "{trace}"],
    "show": ["show", "{trace}"],
    "replay": ["replay", "{trace}", "--capacity", "10000", "--eviction", "lru", "--repetitions", "0"],
    "replay, timed": ["replay", "{trace}", "--capacity", "10000", "--eviction", "lru"],
    "export": ["export", "{trace}", "--format", "oracle-general", "-o", "{source}.out"],
}
_COLUMNS = "{:>14} {:>12} {:>10} {:>10} {:>14} {:>10}"
_RECORD = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
_PART = 10**6

# In a process of its own: it may end it.
_JUDGE = """
import sys
import libcachesim
import numpy as np
keys = np.load(sys.argv[1])
cache = getattr(libcachesim, sys.argv[2])(cache_size=int(sys.argv[3]))
request, hits = libcachesim.Request(), bytearray()
request.obj_size = 1
for key in keys.tolist():
    request.obj_id = key
    hits.append(cache.get(request))
np.save(sys.argv[4], np.frombuffer(hits, np.uint8).astype(bool))
"""


def write_skewed(path: Path, count: int) -> None:
    """An oracleGeneral file of so many requests, of which most are for few of a million keys."""
    made = np.random.default_rng(0)
    with open(path, "wb") as file:
        for first in range(0, count, _PART):
            records = np.zeros(min(_PART, count - first), _RECORD)
            records["key"] = (made.pareto(0.5, len(records)) * 100).astype(np.uint64) % 1_000_000
            records["size"], records["next"] = 4096, -1
            records["time"] = (np.arange(len(records)) + first) // 1000
            file.write(records.tobytes())


def write_lines(path: Path, form: str, count: int) -> None:
    """So many requests for a million keys in a format of lines; a prompt of Mooncake's has 25 blocks."""
    with open(path, "w") as file:
        for number in range(count // 25 if form == "mooncake" else count):
            key = number * 7919 % 1_000_003
            if form == "mooncake":
                blocks = list(range(number * 20, number * 20 + 25))
                file.write(f'{{"timestamp": {number}, "input_length": 12800, "hash_ids": {blocks}}}\n')
            else:
                file.write(f"{key}\n" if form == "plain" else f"{number // 1000},{key},4096\n")


def print_imports(size: int) -> None:
    """A row for each format of lines."""
    with tempfile.TemporaryDirectory() as folder:
        for form in ("mooncake", "csv", "plain"):
            source = Path(folder) / form
            write_lines(source, form, size)
            print_cost(f"of {form}", size, ["import", str(source), "--format", form, "-o", f"{source}.parquet"])


def print_cost(name: str, size: int, arguments: list[str]) -> None:
    """The row of one command."""
    cpu, elapsed, peak = measure(["trace", *arguments], ROOT)
    row = (f"{cpu:.1f}", f"{elapsed:.1f}", f"{size / elapsed:,.0f}", f"{peak:.0f}")
    click.echo(_COLUMNS.format(name, f"{size:,}", *row))


def print_costs(sizes: tuple[int, ...]) -> None:
    """A row for each command and number of requests."""
    click.echo(_COLUMNS.format("command", "requests", "CPU s", "elapsed s", "requests/s", "peak MiB"))
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            names = {"source": Path(folder) / f"{size}.bin", "trace": Path(folder) / f"{size}.parquet"}
            write_skewed(names["source"], size)
            for command, arguments in COMMANDS.items():
                print_cost(command, size, [each.format(**names) for each in arguments])
            print_imports(size)


def print_verdicts(path: Path, capacities: tuple[int, ...]) -> None:
    """Of each policy and capacity, the hits of both and the requests at which they differ."""
    keys = np.concatenate([batch.column("key").to_numpy() for batch in RequestReader(path).batches()])
    with tempfile.TemporaryDirectory() as folder:
        asked, answers = Path(folder) / "keys.npy", Path(folder) / "hits.npy"
        np.save(asked, keys)
        for policy, judge in JUDGES.items():
            for capacity in capacities:
                job = [str(asked), judge, str(capacity), str(answers)]
                subprocess.run([sys.executable, "-c", _JUDGE, *job], check=True, capture_output=True)
                pool = RequestPool(PoolSize(str(capacity), slots=capacity), capacity, policy)
                ours, theirs = (
                    np.array(pool.ask(keys, np.ones(len(keys), dtype=np.int64))),
                    np.load(answers),
                )
                differ = np.count_nonzero(ours != theirs)
                counts = f"{ours.sum():,} hits, libCacheSim {theirs.sum():,}; {differ:,} of {len(keys):,} differ"
                click.echo(f"{policy} at {capacity:,} entries: {counts}")


@click.command()
@click.option("--requests", "sizes", type=click.IntRange(1, 10**9), multiple=True, default=[10**5, 10**6, 10**7])
@click.option("--judge", type=click.Path(path_type=Path, exists=True), help="Compare hits on this imported trace.")
@click.option("--capacity", "capacities", type=click.IntRange(20, 10**8), multiple=True, default=[1_000, 10_000])
def main(sizes: tuple[int, ...], judge: Path | None, capacities: tuple[int, ...]) -> None:
    """Print costs, or verdicts."""
    if judge is None:
        print_costs(sizes)
    else:
        print_verdicts(judge, capacities)


if __name__ == "__main__":
    main()
