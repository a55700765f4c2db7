"""Claims about replays of traces: outcomes, time and memory by storage; printed by ``claims.py``."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from claim_traces import STORAGES, TRACE, read, synthetic
from rich.progress import track

from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import BackendReport, Replay, verify_replay
from kvbench.replay.summary import ratio
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step
from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy, make_backend

__all__ = ["batch_sizes", "hit_rate", "recurrent_step", "storages", "sweep"]

SWEPT_SEARCHES = 8
WHOLE_TRACE_SLOTS = (1, 2, 5, 10, 20, 50, 100, 150, 200)


def sweep() -> None:
    """Outcomes of the new cache at every capacity and strategy, and beside legacy's on the whole trace."""
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
    _sweep_whole(read(TRACE), contents, latents)


def _sweep_whole(steps: Sequence[Step], contents: Contents, latents: Latents) -> None:
    geometry = TraceReader(TRACE).header.geometry
    for capacity in WHOLE_TRACE_SLOTS:
        for name, strategy in (("legacy", EvictionStrategy.FIFO), *(("new", each) for each in EvictionStrategy)):
            config = CacheConfig(geometry, recur_pool_size=capacity, eviction_strategy=strategy.value)
            total = verify_replay(make_backend(name, config), steps, contents, latents).outcomes.total
            counts = ", ".join(f"{each.value} {total[each]}" for each in Outcome)
            label = name if name == "legacy" else f"{name} {strategy.name}"
            print(f"whole trace, {capacity} recurrent slots, {label}: {counts}", flush=True)


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
    """The time of a recurrent step on an idle machine: a sixth of the steps are faster."""
    assert report.times is not None
    return statistics.quantiles([lap for repetition in report.times.step for lap in repetition], n=6)[0]


def batch_sizes() -> None:
    """Every storage over legacy at 1, 8 and 64 environments and every dtype, and the smallest of the ratios."""
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


def hit_rate() -> None:
    """Hits of recurrent lookups at equal bytes, by geometry: shares of legacy's bytes for a whole search."""
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
