"""Claims about the parts of an operation's time, and about the harness; printed by ``claims.py``."""

from __future__ import annotations

import statistics
import time
import timeit
from dataclasses import replace
from itertools import product

import torch
import xxhash
from claim_traces import STORAGES, TRACE, filled, read, short
from overhead import gate_laps, operation_laps, replay_laps

from kvbench.record.fills import FILLS
from kvbench.replay.drive import Latents
from kvbench.replay.operations import operation_config, prepare_operation
from kvbench.replay.passes import Replay
from kvbench.trace.reader import TraceReader
from kvbench.trace.steps import Step
from kvcache import GEOMETRIES, CacheConfig, Geometry, make_backend
from kvcache.kernels import make_kernels

__all__ = ["bandwidth", "overhead", "parts"]

_LAPS = 64


def parts() -> None:
    """The parts of a recurrent step's time, each with its floor: a copy of as many bytes from or to cold memory."""
    arena = torch.ones(2, 256 << 20, dtype=torch.uint8)
    print("us of a recurrent step, p50: part (floor)")
    for geometry, fill in product(GEOMETRIES.values(), FILLS):
        steps = filled(short(geometry), fill, 0, 2)
        for backend in ("new:slab", "new:paged"):
            print(f"{fill}: {_parts_of(backend, geometry, steps, arena)}", flush=True)


def _parts_of(backend: str, geometry: Geometry, steps: list[Step], arena: torch.Tensor) -> str:
    replay = Replay(steps, CacheConfig(geometry, init_pool_size=2), ["legacy", backend])
    replay.time(3)
    times = replay.reports[backend].times
    assert times is not None
    host = {operation: statistics.median(laps) / 1000 for operation, laps in times.host.items()}
    moved = statistics.median(each.bytes_copied for each in replay.verify(backend).step_counts)
    # A step's gather and scatter: bytes of the batch and bytes of the new tokens.
    appended = geometry.env_num * steps[-1].tokens * geometry.entry_bytes() // geometry.context_length
    sizes = {"gather": int(moved) - appended, "scatter": appended}
    laps = {part: _kernel_us(arena, geometry, size, part == "gather") for part, size in sizes.items()}
    floors = {part: _copy_us(arena, size, part == "gather") for part, size in sizes.items()}
    latents = Latents(geometry.embed_dim, "cpu").inputs(steps[-1]).new
    assert latents is not None
    digested = min(timeit.repeat(lambda: xxhash.xxh64_intdigest(latents.numpy()), number=100)) * 1e4
    bookkeeping = host["lookup"] + host["assemble"] + host["store"] - sum(laps.values())
    step = statistics.median(lap for repetition in times.step for lap in repetition) / 1000
    moves = ", ".join(
        f"{part} of {size / 1024:.0f} KiB {laps[part]:.0f} ({floors[part]:.0f})" for part, size in sizes.items()
    )
    return (
        f"{geometry.name}, {backend}: step {step:.0f}; hashing {2 * host['hash']:.0f} ({2 * digested:.0f}), "
        f"bookkeeping {bookkeeping:.0f} (0), {moves}"
    )


def _kernel_us(arena: torch.Tensor, geometry: Geometry, size: int, gathers: bool) -> float:
    """Microseconds of a gather or scatter of ``size`` bytes by the library's kernels, from or to cold tokens."""
    kernels = make_kernels("cpu")
    width = geometry.entry_bytes() // geometry.context_length
    pool = arena[0, : arena.shape[1] // width * width].view(torch.float32).view(-1, width // 4)
    tokens = max(1, size // width)
    batch = torch.ones(2 * geometry.num_layers, 1, geometry.num_heads, tokens, geometry.head_dim)
    places = torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))
    laps = []
    for index in places[: tokens * _LAPS].split(tokens):
        if len(index) == tokens:
            start = time.perf_counter_ns()
            if gathers:
                kernels.gather(pool, index[:, None], batch)
            else:
                kernels.scatter(pool, index[:, None], batch)
            laps.append(time.perf_counter_ns() - start)
    return statistics.median(laps) / 1000


def _copy_us(arena: torch.Tensor, size: int, reads: bool) -> float:
    """Microseconds of a copy of ``size`` bytes from (``reads``) or to cold memory."""
    pool, batch = arena[0], arena[1, :size]
    laps = []
    for begin in range(0, len(pool) - size, max(size, len(pool) // _LAPS)):
        rows = pool[begin : begin + size]
        target, source = (batch, rows) if reads else (rows, batch)
        start = time.perf_counter_ns()
        target.copy_(source)
        laps.append(time.perf_counter_ns() - start)
    return statistics.median(laps) / 1000


def bandwidth() -> None:
    """Bandwidth of a large batch's gather and scatter, as a share of plain copies of as many bytes."""
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
    """The harness's own time: a backend that does nothing, timed beside new on the same requests."""
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
