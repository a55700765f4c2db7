"""The settings of a replay: capacities as people write them, and the caches that come of them for one trace."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TypedDict

import torch

from kvbench.errors import KvbenchError
from kvbench.results.replay import DEFAULT_CAPACITIES, Capacity
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceError, TraceHeader
from kvbench.trace.steps import TraceSteps
from kvcache import CacheConfig

__all__ = [
    "BYTES", "DTYPES", "CacheSettings", "CapacityError", "cache_config", "capacity_of_trace", "parse_capacity",
    "read_replayed",
]  # fmt: skip

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MOST_SLOTS, _MOST_BYTES, _MOST_DIGITS = 10**9, 1 << 60, 20  # more are in no machine
_NUMBER = rf"0*[1-9]\d{{0,{_MOST_DIGITS - 1}}}"
_PART = re.compile(rf"(?:(init|recur)=)?({_NUMBER})(?:({'|'.join(BYTES)})|/({_NUMBER})(B)?)?", re.ASCII)


class CapacityError(KvbenchError):
    """A capacity in none of the forms, or that no pool can have."""


class CacheSettings(TypedDict):
    """Options that hold for every cache of a command, as files of results have them; ``searches`` None is all."""

    searches: int | None
    eviction: str
    dtype: str
    threads: int


def read_replayed(reader: TraceReader, settings: CacheSettings) -> TraceSteps:
    """The steps of a trace that are replayed. Raises TraceError: it is not sound, or there are none."""
    searches = settings["searches"]
    steps = TraceSteps(reader, searches)
    if not steps:
        raise TraceError(reader.path, f"it has none of the first {searches} searches: leave --searches out")
    return steps


def parse_capacity(text: str, header: TraceHeader | None = None, dtype: str = "float32") -> Capacity:
    """Read a capacity. Shares, as in ``recur=1/8``, have sizes where the ``header`` of a trace is given.

    Raises CapacityError, which names the forms.
    """
    if text in DEFAULT_CAPACITIES:
        return Capacity(text)
    sizes: dict[str, dict[str, int]] = {"init": {}, "recur": {}}
    given: set[str | None] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise CapacityError(
                f"{text!r}: give 'default', 'recorded', N, 'init=N', 'recur=N' or 'init=N,recur=M', where N is a "
                "number of slots, with a unit of bytes ('50MB'), or a share ('1/8', or '1/8B' of the bytes)"
            )
        pool, number, unit, divisor, of_bytes = found.groups()
        if pool in given:
            raise CapacityError(f"{text!r}: it gives {pool or 'all pools'} twice")
        given.add(pool)
        for each in [pool] if pool else sizes:
            if divisor is None:
                size = _bounded(text, int(number) * BYTES.get(unit, 1), bool(unit))
                sizes[each] = {f"{each}_bytes" if unit else each: size}
            else:
                sizes[each] = _shared(text, each, (int(number), int(divisor)), bool(of_bytes), header, dtype)
    return Capacity(text, **sizes["init"], **sizes["recur"])


def _bounded(text: str, size: int, in_bytes: bool) -> int:
    most = _MOST_BYTES if in_bytes else _MOST_SLOTS
    if size > most:
        raise CapacityError(f"{text!r}: a pool has at most {most:,} {'bytes' if in_bytes else 'slots'}")
    return size


def _shared(
    text: str, pool: str, parts: tuple[int, int], of_bytes: bool, header: TraceHeader | None, dtype: str
) -> dict[str, int]:
    """The size of a pool as a share of its default one; none without a trace. Of bytes: those of full entries."""
    if parts[0] > parts[1]:
        raise CapacityError(f"{text!r}: a share is at most 1/1")
    if header is None:
        return {}
    config = CacheConfig(header.geometry, dtype=DTYPES[dtype])
    slots = config.init_entries if pool == "init" else config.recur_entries
    whole = slots * config.entry_bytes if of_bytes else slots
    return {f"{pool}_bytes" if of_bytes else pool: max(1, int(whole * Fraction(*parts)))}


def capacity_of_trace(capacity: Capacity, header: TraceHeader, dtype: str) -> Capacity:
    """The sizes for one trace: ``recorded`` takes those of the recorded run, and a share those of its geometry."""
    if capacity.label == "recorded":
        pools = header.pools or {}
        return Capacity("recorded", pools.get("init"), pools.get("recur"))
    return parse_capacity(capacity.label, header, dtype)


def cache_config(reader: TraceReader, capacity: Capacity, device: str, settings: CacheSettings) -> CacheConfig:
    """For caches of a trace. Raises CapacityError for sizes out of range."""
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
        raise CapacityError(f"{reader.path.name} at --capacity {capacity.label}: {error}") from None
