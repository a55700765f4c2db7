"""Prints the figures behind the claims that the README and the closing notes make; each is also a test.

Usage: python benchmarks/claims.py [sweep] [bookkeeping] [allocations] [recurrent-step] [storages] [batch-sizes]
       [parts] [same-search] [same-search-full] [sliding] [capacities] [small-pools] [validation] [uncached]
       [padding] [hit-rate] [bandwidth] [overhead]   (default: all but same-search-full, which takes 35 min)
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cachetools
import model_claims
import torch
import xxhash
from overhead import gate_laps, operation_laps, replay_laps
from rich.progress import track

from kvbench.measure.counters import OperationCounter
from kvbench.measure.machine import Machine
from kvbench.record.synthetic import SyntheticSearch, write_synthetic_trace
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.operations import operation_config, prepare_operation
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import BackendReport, Replay, verify_replay
from kvbench.replay.summary import ratio
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step, read_steps
from kvcache import (
    GEOMETRIES,
    CacheBackend,
    CacheConfig,
    EvictionStrategy,
    Geometry,
    KeysValues,
    KVCachePool,
    make_backend,
)
from kvcache.kernels import Kernels

TRACE = Path(__file__).parent / "traces" / "cartpole-lightzero-0.2.0-seed0.parquet"
SWEPT_SEARCHES = 8
STORAGES = ("new:slab", "new:paged", "new:paged-resident")
WHOLE_TRACE_SLOTS = (1, 2, 5, 10, 20, 50, 100, 150, 200)


def read(path: Path, searches: int | None = None) -> list[Step]:
    return [step for step in read_steps(TraceReader(path).events()) if searches is None or step.search < searches]


def synthetic(geometry: Geometry, seed: int, searches: int) -> list[Step]:
    """A synthetic search of at most 25 simulations: the deep end of a longer one costs the same per step."""
    short = replace(geometry, num_simulations=min(geometry.num_simulations, 25))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.parquet"
        list(write_synthetic_trace(path, SyntheticSearch(short, searches, seed)))
        return read(path)


def sweep() -> None:
    """New at every capacity and strategy: stale hits and wrong contents; legacy's stale hits beside them."""
    geometry = TraceReader(TRACE).header.geometry
    contents, latents = Contents(geometry), Latents(geometry.embed_dim, "cpu")
    part = read(TRACE, SWEPT_SEARCHES)
    slots = geometry.env_num * geometry.num_simulations
    found: Counter[str] = Counter()
    replays = 0
    for capacity in track(range(1, slots + 1), f"new at 1 to {slots} slots, {SWEPT_SEARCHES} searches"):
        for strategy in EvictionStrategy:
            config = CacheConfig(
                geometry, init_pool_size=capacity, recur_pool_size=capacity, eviction_strategy=strategy.value
            )
            result = verify_replay(make_backend("new", config), part, contents, latents)
            found += Counter({each.value: number for each, number in result.outcomes.total.items()})
            found["faults"] += len(result.faults)
            replays += 1
    print(
        f"new, {replays} replays (1 to {slots} slots x 3 strategies, {SWEPT_SEARCHES} searches): "
        f"{found[Outcome.STALE_HIT.value]} stale hits, {found[Outcome.WRONG_CONTENT.value]} wrong contents, "
        f"{found['faults']} faults in {sum(found.values())} lookups"
    )
    whole = read(TRACE)
    for capacity in WHOLE_TRACE_SLOTS:
        for name, strategy in (("legacy", EvictionStrategy.FIFO), *(("new", each) for each in EvictionStrategy)):
            config = CacheConfig(geometry, recur_pool_size=capacity, eviction_strategy=strategy.value)
            total = verify_replay(make_backend(name, config), whole, contents, latents).outcomes.total
            counts = ", ".join(f"{each.value} {total[each]}" for each in Outcome)
            label = name if name == "legacy" else f"{name} {strategy.name}"
            print(f"whole trace, {capacity} recurrent slots, {label}: {counts}", flush=True)


def bookkeeping() -> None:
    """A get and a set without tensors, against ``cachetools.LRUCache``, in alternating order."""
    for strategy in EvictionStrategy:
        pairs = bookkeeping_ratios(strategy)
        print(
            f"get + set, {strategy.name}: {statistics.median(pairs):.2f} times cachetools.LRUCache "
            f"({min(pairs):.2f} to {max(pairs):.2f} in {len(pairs)} pairs)"
        )


def bookkeeping_ratios(strategy: EvictionStrategy, pairs: int = 15, slots: int = 400) -> list[float]:
    """Time of our pool over time of ``cachetools.LRUCache`` for the same gets and sets, one ratio a pair."""
    source = random.Random(0)
    keys = [source.randrange(2 * slots) for _ in range(20_000)]
    value = object()

    def lap(get: Callable[..., object], put: Callable[..., object]) -> int:
        start = time.perf_counter_ns()
        for key in keys:
            get(key)
            put(key, value)
        return time.perf_counter_ns() - start

    ratios = []
    gc.collect()
    gc.disable()
    try:
        for number in range(pairs):
            ours, theirs = KVCachePool(slots, strategy, storage="reference"), cachetools.LRUCache(slots)
            laps = {}
            order = [("ours", ours.get, ours.set), ("theirs", theirs.get, theirs.__setitem__)]
            for name, get, put in order if number % 2 else reversed(order):
                laps[name] = lap(get, put)
            ratios.append(laps["ours"] / laps["theirs"])
    finally:
        gc.enable()
    return ratios


def allocations() -> None:
    """50 inserts, ten times over, with a clear in between."""
    pool = KVCachePool(400)
    entry = KeysValues(1, 8, 8, 768, 2)
    after_first = 0
    for round_number in range(10):
        with OperationCounter() as counter:
            for key in range(50):
                pool.set(key + 50 * round_number, entry)
            pool.clear()
        if round_number:
            after_first += counter.counts.allocations
    print(
        f"50 inserts x 10 clears: {pool.slots_allocated} slots allocated, {after_first} tensors after the first round"
    )


def recurrent_step() -> None:
    """Legacy over new, interleaved, on a synthetic search of every geometry (SPEC 1) and on the recorded one."""
    traces = {"cartpole (recorded)": (TraceReader(TRACE).header.geometry, read(TRACE, 20))}
    for name, geometry in GEOMETRIES.items():
        for seed in (0, 1):
            traces[f"{name} (synthetic, seed {seed})"] = (geometry, synthetic(geometry, seed, searches=4))
    for label, (geometry, steps) in traces.items():
        replay = Replay(steps, CacheConfig(geometry), ["legacy", "new"])
        replay.time(3)
        found = ratio(replay.reports["legacy"], replay.reports["new"])
        assert found is not None
        print(
            f"recurrent step, {label}: legacy / new {found['median']:.2f} (quartiles {found['p25']:.2f} to "
            f"{found['p75']:.2f}; repetitions {found['lowest_repetition']:.2f} to {found['highest_repetition']:.2f})"
        )


def storages() -> None:
    """Every storage over legacy: time, memory and operations of a recurrent step, by geometry."""
    for name, geometry in GEOMETRIES.items():
        steps = synthetic(geometry, seed=0, searches=4)
        for backend in STORAGES:
            replay = Replay(steps, CacheConfig(geometry), ["legacy", backend])
            replay.time(3)
            reports = replay.reports
            found = ratio(reports["legacy"], reports[backend])
            assert found is not None
            verified = {each: replay.verify(each) for each in reports}
            saved = verified["legacy"].bytes_reserved["recur"] / verified[backend].bytes_reserved["recur"]
            operations = max(each.tensor_ops for each in verified[backend].step_counts)
            fastest = _fastest(reports["legacy"]) / _fastest(reports[backend])
            print(
                f"{name}, {backend}: legacy / new {found['median']:.2f} (quartiles {found['p25']:.2f} to "
                f"{found['p75']:.2f}; the fastest sixths {fastest:.2f}); "
                f"recurrent pool, bytes: legacy / new {saved:.1f}; at most {operations} tensor "
                f"operations a step; {sum(len(each.faults) for each in verified.values())} faults"
            )


def _fastest(report: BackendReport) -> float:
    """What a recurrent step takes while others leave the machine alone: a sixth of the steps are faster."""
    assert report.times is not None
    return statistics.quantiles([lap for repetition in report.times.step for lap in repetition], n=6)[0]


def batch_sizes() -> None:
    """Every storage over legacy at 1, 8 and 64 environments and every dtype, and the least of the ratios."""
    slowest = math.inf
    for name, geometry in GEOMETRIES.items():
        for rows in (1, 8, 64):
            # A few steps are enough for a median, and 64 environments of visual-match take gigabytes for 25.
            sized = replace(geometry, env_num=rows, num_simulations=10)
            steps = synthetic(sized, seed=0, searches=4 if rows < 64 else 2)
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                replay = Replay(steps, CacheConfig(sized, dtype=dtype), ["legacy", *STORAGES])
                replay.time(2)
                found = [ratio(replay.reports["legacy"], replay.reports[each]) for each in STORAGES]
                medians = [each["median"] for each in found if each is not None]
                slowest = min(slowest, *medians)
                print(
                    f"{name} x {rows}, {str(dtype).removeprefix('torch.')}: legacy / new "
                    + ", ".join(f"{each} {median:.1f}" for each, median in zip(STORAGES, medians, strict=True)),
                    flush=True,
                )
    print(f"the least of all these ratios: {slowest:.2f}")


class TimedKernels(Kernels):
    """Kernels with a watch: how long each call took, and how many bytes it moved."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self.gathers: list[tuple[int, int]] = []  # nanoseconds, bytes
        self.scatters: list[tuple[int, int]] = []

    def gather(self, pool: torch.Tensor, index: torch.Tensor, out: torch.Tensor, *shifts: torch.Tensor | None) -> None:
        start = time.perf_counter_ns()
        self._kernels.gather(pool, index, out, *shifts)
        self.gathers.append((time.perf_counter_ns() - start, out.nbytes))

    def scatter(self, pool: torch.Tensor, index: torch.Tensor, source: torch.Tensor) -> None:
        start = time.perf_counter_ns()
        self._kernels.scatter(pool, index, source)
        self.scatters.append((time.perf_counter_ns() - start, source.nbytes))

    @property
    def nbytes(self) -> int:
        return self._kernels.nbytes


def parts() -> None:
    """Where one recurrent step's time goes, and its floor: a copy of as many bytes, those of the pool in no cache."""
    arena = torch.ones(2, 256 << 20, dtype=torch.uint8)
    print("us of a recurrent step, p50: part (floor)")
    for name, geometry in GEOMETRIES.items():
        steps = synthetic(geometry, seed=0, searches=4)
        for backend in ("new:slab", "new:paged"):
            timed: list[TimedKernels] = []

            def make(name: str, config: CacheConfig, timed: list[TimedKernels] = timed) -> CacheBackend:
                cache = make_backend(name, config)
                if name != "legacy":
                    timed.append(TimedKernels(cache._batch._kernels))  # type: ignore[attr-defined]
                    cache._batch._kernels = timed[-1]  # type: ignore[attr-defined]
                return cache

            replay = Replay(steps, CacheConfig(geometry), ["legacy", backend], make=make)
            replay.time(3)
            times = replay.reports[backend].times
            assert times is not None
            host = {operation: statistics.median(laps) / 1000 for operation, laps in times.host.items()}
            kernels = timed[-1]  # of the backend that was timed: the last that was made
            moved = {}
            for part, calls in (("gather", kernels.gathers), ("scatter", kernels.scatters)):
                moved[part] = statistics.median(lap for lap, _ in calls) / 1000, statistics.median(n for _, n in calls)
            floors = {part: _copy_us(arena, int(size), part == "gather") for part, (_, size) in moved.items()}
            latents = Latents(geometry.embed_dim, "cpu").inputs(steps[-1]).new
            assert latents is not None
            digested = min(timeit.repeat(lambda: xxhash.xxh64_intdigest(latents.numpy()), number=100)) * 1e4  # noqa: B023
            bookkeeping = host["lookup"] + host["assemble"] - moved["gather"][0] + host["store"] - moved["scatter"][0]
            step = statistics.median(lap for repetition in times.step for lap in repetition) / 1000
            print(
                f"{name}, {backend}: step {step:.0f}; hashing {2 * host['hash']:.0f} ({2 * digested:.0f}), bookkeeping "
                f"{bookkeeping:.0f} (0), "
                + ", ".join(
                    f"{part} of {size / 1024:.0f} KiB {lap:.0f} ({floors[part]:.0f})"
                    for part, (lap, size) in moved.items()
                ),
                flush=True,
            )


def _copy_us(arena: torch.Tensor, size: int, reads: bool) -> float:
    """Microseconds of copying ``size`` bytes from (``reads``) or to places that were not touched for long."""
    pool, batch = arena[0], arena[1, :size]
    laps = []
    for begin in range(0, len(pool) - size, max(size, len(pool) // 64)):
        rows = pool[begin : begin + size]
        target, source = (batch, rows) if reads else (rows, batch)
        start = time.perf_counter_ns()
        target.copy_(source)
        laps.append(time.perf_counter_ns() - start)
    return statistics.median(laps) / 1000


def hit_rate() -> None:
    """What recurrent lookups find at equal bytes, by geometry: shares of what legacy takes for a whole search."""
    print("hits in % (stale ones in brackets), by bytes of the recurrent pool; init pools as large as by default")
    for name, geometry in GEOMETRIES.items():
        steps = synthetic(geometry, seed=0, searches=4)
        contents, latents = Contents(geometry), Latents(geometry.embed_dim, "cpu")
        whole = 25 * geometry.env_num * geometry.entry_bytes()
        for share in (64, 32, 16, 8, 4, 2, 1):
            found = []
            if whole // share < geometry.entry_bytes():
                continue
            for backend in ("legacy", "new:slab", "new:paged"):
                cache = make_backend(backend, CacheConfig(geometry, recur_pool_bytes=whole // share))
                cache.position_shift = contents.position_shift("cpu", torch.float32)
                total = verify_replay(cache, steps, contents, latents).outcomes.total
                lookups = sum(total.values())
                found.append(
                    f"{100 * total[Outcome.HIT] / lookups:.1f} ({100 * total[Outcome.STALE_HIT] / lookups:.1f})"
                )
            print(f"{name}, {whole / share / 1e6:.2f} MB: legacy {found[0]}, slab {found[1]}, paged {found[2]}")


def bandwidth() -> None:
    """How near a large batch's gather and scatter come to plain copies of as many bytes, in one run."""
    geometry = replace(GEOMETRIES["wide"], env_num=64)
    for backend in STORAGES[:2]:
        for kind in ("assemble_equal", "store"):
            cache = make_backend(backend, operation_config(geometry, 64))
            operation = prepare_operation(kind, cache)
            for _ in range(5):  # pages nobody shares are more than were reserved: memory grows at first
                moved = operation.counts().bytes_copied
            source, target = torch.ones(2, moved, dtype=torch.uint8).unbind(0)
            ratios = []
            for _ in range(15):
                operation.prepare()
                laps = []
                for call in (operation.call, lambda: target.copy_(source)):  # noqa: B023
                    start = time.perf_counter_ns()
                    call()
                    laps.append(time.perf_counter_ns() - start)
                ratios.append(laps[1] / laps[0])
            print(
                f"{geometry.name}, 64 environments, {backend}, {kind}: {100 * statistics.median(ratios):.0f} % of the "
                f"bandwidth of a copy of its {moved / 1e6:.0f} MB"
            )


def overhead() -> None:
    """What the harness itself takes: a backend that does nothing, timed beside new on the same requests."""
    geometry = TraceReader(TRACE).header.geometry
    for label, laps in (
        ("replay", replay_laps(read(TRACE, 20), geometry, repetitions=3)),
        ("time_operations", operation_laps(geometry, repetitions=1000)),
    ):
        for operation, (empty, new) in laps.items():
            print(
                f"overhead of {label}, {operation}: {empty:.2f} us of an empty backend, "
                f"{new:.2f} us of new ({100 * empty / new:.1f} %), p50, {geometry.name}"
            )
    for what, empty in gate_laps().items():
        print(f"overhead of the gate, {what.replace('_', ' ')}: {empty:.2f} us of nothing, p50")


CLAIMS = {
    "sweep": sweep,
    "bookkeeping": bookkeeping,
    "allocations": allocations,
    "recurrent-step": recurrent_step,
    "storages": storages,
    "batch-sizes": batch_sizes,
    "parts": parts,
    "same-search": model_claims.same_search,
    "same-search-full": model_claims.same_search_full,
    "sliding": model_claims.sliding,
    "capacities": model_claims.capacities,
    "small-pools": model_claims.small_pools,
    "validation": model_claims.validation,
    "uncached": model_claims.uncached,
    "padding": model_claims.padding,
    "hit-rate": hit_rate,
    "bandwidth": bandwidth,
    "overhead": overhead,
}


LONG = ("same-search-full",)


def main(names: list[str]) -> None:
    unknown = set(names) - set(CLAIMS)
    if unknown:
        sys.exit(f"{__doc__}\nunknown: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    print(Machine.describe())
    for name in names or (name for name in CLAIMS if name not in LONG):
        CLAIMS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
