"""What commands that replay have in common: capacities as the command line names them, settings, and caches of both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypedDict

import click
import torch

from kvbench.replay.needs import require_for_events
from kvbench.results.replay import DEFAULT_CAPACITIES, Capacity
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceError, TraceHeader
from kvbench.trace.steps import PackedSteps, Step, read_steps
from kvcache import CacheConfig

__all__ = ["DTYPES", "CacheSettings", "cache_config", "parse_capacity", "read_replayed", "recorded_or_given"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MOST_SLOTS, _MOST_BYTES, _MOST_DIGITS = 10**9, 1 << 60, 20  # more are in no machine
_PART = re.compile(rf"(?:(init|recur)=)?(0*[1-9]\d{{0,{_MOST_DIGITS - 1}}})({'|'.join(_UNITS)})?", re.ASCII)


class CacheSettings(TypedDict):
    """Options that hold for every cache of a command, as files of results have them; ``searches`` None is all."""

    searches: int | None
    eviction: str
    dtype: str
    threads: int


def read_replayed(reader: TraceReader, settings: CacheSettings) -> Sequence[Step]:
    """The steps of a trace that are replayed.

    Raises:
        TraceError: it is not sound, or there are none.
        MemoryShortError: it has too many events.
    """
    searches = settings["searches"]
    if searches is None:
        require_for_events(reader)
    read = read_steps(reader.sound_events())
    steps = PackedSteps(step for step in read if searches is None or step.search < searches)
    if not steps:
        raise TraceError(reader.path, f"it has none of the first {searches} searches: leave --searches out")
    return steps


def parse_capacity(text: str) -> Capacity:
    """Read an option's value. Raises click.BadParameter, which names the forms."""
    if text in DEFAULT_CAPACITIES:
        return Capacity(text)
    sizes: dict[str, dict[str, int]] = {"init": {}, "recur": {}}
    given: set[str | None] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise click.BadParameter(
                f"{text!r}: give 'default', 'recorded', N, 'init=N', 'recur=N' or 'init=N,recur=M', where N is a "
                "number of slots or, with a unit, of bytes: '50MB'"
            )
        pool, number, unit = found.groups()
        size, most = int(number) * _UNITS.get(unit, 1), _MOST_BYTES if unit else _MOST_SLOTS
        if size > most:
            raise click.BadParameter(f"{text!r}: a pool has at most {most:,} {'bytes' if unit else 'slots'}")
        if pool in given:
            raise click.BadParameter(f"{text!r}: it gives {pool or 'all pools'} twice")
        given.add(pool)
        for each in [pool] if pool else sizes:
            sizes[each] = {f"{each}_bytes" if unit else each: size}
    return Capacity(text, **sizes["init"], **sizes["recur"])


def recorded_or_given(capacity: Capacity, header: TraceHeader) -> Capacity:
    """The sizes for one trace: ``recorded`` takes those of the recorded run."""
    pools = header.pools or {}
    return Capacity("recorded", pools.get("init"), pools.get("recur")) if capacity.label == "recorded" else capacity


def cache_config(reader: TraceReader, capacity: Capacity, device: str, settings: CacheSettings) -> CacheConfig:
    """For caches of a trace. Raises click.UsageError for sizes out of range."""
    try:
        return CacheConfig(
            reader.header.geometry,
            init_pool_size=capacity.init,
            recur_pool_size=capacity.recur,
            init_pool_bytes=capacity.init_bytes,
            recur_pool_bytes=capacity.recur_bytes,
            eviction_strategy=settings["eviction"],
            device=device,
            dtype=DTYPES[settings["dtype"]],
        )
    except ValueError as error:
        raise click.UsageError(f"{reader.path.name} at --capacity {capacity.label}: {error}") from None
