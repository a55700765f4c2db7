"""Claims about replays of traces: outcomes, time and memory by storage; printed by ``claims.py``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from claim_traces import SIMULATIONS, STORAGES, TRACE, filled, read, short
from rich.progress import track

from kvbench.record.fills import FILLS
from kvbench.replay.content import Contents
from kvbench.replay.drive import Latents
from kvbench.replay.outcomes import Outcome
from kvbench.replay.passes import Replay, verify_replay
from kvbench.replay.summary import ratio
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step
from kvcache import GEOMETRIES, CacheConfig, EvictionStrategy, Geometry, make_backend

__all__ = ["batch_sizes", "hit_rate", "recurrent_step", "storages", "sweep"]

SWEPT_SEARCHES = 8
TRACE_SEARCHES = 20
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
    """Legacy over new, in turns, on the recorded search, and on every fill of every geometry."""
    traces = {"cartpole (recorded)": (TraceReader(TRACE).header.geometry, read(TRACE, TRACE_SEARCHES))}
    for name, geometry in GEOMETRIES.items():
        traces |= {f"{name} ({fill})": (geometry, filled(short(geometry), fill, 0, 2)) for fill in FILLS}
    for label, (geometry, steps) in traces.items():
        replay = Replay(steps, _config(geometry), ["legacy", "new"])
        replay.time(3)
        found = ratio(replay.reports["legacy"], replay.reports["new"])
        assert found is not None
        print(
            f"recurrent step, {label}: legacy / new {found['median']:.2f} (quartiles {found['p25']:.2f} to "
            f"{found['p75']:.2f}; repetitions {found['lowest_repetition']:.2f} to {found['highest_repetition']:.2f})",
            flush=True,
        )


def _config(geometry: Geometry, **settings: Any) -> CacheConfig:
    """A configuration whose init pools have two slots, as LightZero 0.2.0's: only the last root is looked up."""
    return CacheConfig(geometry, init_pool_size=2, **settings)


def storages() -> None:
    """Every storage's memory and operations over legacy's, by geometry and fill. ``fill.py`` has their times."""
    for name, geometry in GEOMETRIES.items():
        for fill in FILLS:
            steps = filled(short(geometry), fill, 0, 2)
            replay = Replay(steps, _config(geometry), ["legacy", *STORAGES])
            verified = {each: replay.verify(each) for each in replay.reports}
            for backend in STORAGES:
                saved = verified["legacy"].bytes_reserved["recur"] / verified[backend].bytes_reserved["recur"]
                operations = max(each.tensor_ops for each in verified[backend].step_counts)
                faults = sum(len(each.faults) for each in (verified["legacy"], verified[backend]))
                print(
                    f"{name}, {fill}, {backend}: recurrent pool, bytes: legacy / new {saved:.1f}; at most {operations} "
                    f"tensor operations a step; {faults} faults",
                    flush=True,
                )


def batch_sizes() -> None:
    """Every storage over legacy by fill, at 1, 8 and 64 environments and every dtype; and the least of the ratios."""
    slowest = math.inf
    for name, geometry in GEOMETRIES.items():
        for rows, fill in product((1, 8, 64), FILLS):
            # A few steps are enough for a median, and 64 environments of visual-match take gigabytes for 25.
            sized = replace(geometry, env_num=rows, num_simulations=10)
            steps = filled(sized, fill, 0, 2)
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                replay = Replay(steps, _config(sized, dtype=dtype), ["legacy", *STORAGES])
                replay.time(2)
                found = [ratio(replay.reports["legacy"], replay.reports[each]) for each in STORAGES]
                medians = [each["median"] for each in found if each is not None]
                slowest = min(slowest, *medians)
                print(
                    f"{name} x {rows}, {fill}, {str(dtype).removeprefix('torch.')}: legacy / new "
                    + ", ".join(f"{each} {median:.1f}" for each, median in zip(STORAGES, medians, strict=True)),
                    flush=True,
                )
    print(f"the least of all these ratios: {slowest:.2f}")


def hit_rate() -> None:
    """Hits of recurrent lookups at equal bytes, by geometry and fill: shares of legacy's bytes for a whole search."""
    print("hits in % (stale ones in brackets), by bytes of the recurrent pool; init pools of two entries")
    for (name, geometry), fill in product(GEOMETRIES.items(), FILLS):
        steps = filled(short(geometry), fill, 0, 2)
        whole = SIMULATIONS * geometry.env_num * geometry.entry_bytes()
        for share in (64, 32, 16, 8, 4, 2, 1):
            if whole // share >= geometry.entry_bytes():
                found = [_hits(backend, geometry, steps, whole // share) for backend in ("legacy", *STORAGES[:2])]
                of_each = f"legacy {found[0]}, slab {found[1]}, paged {found[2]}"
                print(f"{name}, {fill}, {whole / share / 1e6:.2f} MB: {of_each}", flush=True)


def _hits(backend: str, geometry: Geometry, steps: Sequence[Step], nbytes: int) -> str:
    """Hits, and stale hits, of the recurrent lookups, in %."""
    contents, latents = Contents(geometry), Latents(geometry.embed_dim, "cpu")
    cache = make_backend(backend, _config(geometry, recur_pool_bytes=nbytes))
    cache.position_shift = contents.position_shift("cpu", torch.float32)
    found = verify_replay(cache, steps, contents, latents).outcomes.node
    lookups = found.total()
    return f"{100 * found[Outcome.HIT] / lookups:.1f} ({100 * found[Outcome.STALE_HIT] / lookups:.1f})"
