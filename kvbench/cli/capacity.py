"""``--capacity``: sizes of pools as the command line names them, in slots or in bytes, and caches of those sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import torch

from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import TraceHeader
from kvcache import CacheConfig

__all__ = ["DTYPES", "Capacity", "CapacityType"]

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Capacity:
    """Pool sizes as the command line names them; None leaves a pool to the backend."""

    label: str
    init: int | None = None
    recur: int | None = None
    init_bytes: int | None = None
    recur_bytes: int | None = None

    def of(self, header: TraceHeader) -> Capacity:
        """The sizes for one trace: ``recorded`` takes those of the recorded run."""
        if self.label != "recorded" or not header.pools:
            return self
        return Capacity(self.label, header.pools.get("init"), header.pools.get("recur"))

    def config(self, reader: TraceReader, eviction: str, device: str, dtype: str) -> CacheConfig:
        """For caches of these sizes: ``of`` was asked before. Raises click.UsageError for sizes out of range."""
        try:
            return CacheConfig(
                reader.header.geometry,
                init_pool_size=self.init,
                recur_pool_size=self.recur,
                init_pool_bytes=self.init_bytes,
                recur_pool_bytes=self.recur_bytes,
                eviction_strategy=eviction,
                device=device,
                dtype=DTYPES[dtype],
            )
        except ValueError as error:
            raise click.UsageError(f"{reader.path.name} at --capacity {self.label}: {error}") from None


# Larger units first: each name ends in the one behind it.
_UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0


def _as_bytes(text: str) -> int | None:
    """The bytes that a text such as ``50MB`` means; None where it means none."""
    for unit, size in _UNITS.items():
        if text.endswith(unit):
            number = text.removesuffix(unit)
            return int(number) * size if _is_count(number) else None
    return None


if TYPE_CHECKING:
    _CapacityBase = click.ParamType[Capacity]
else:  # click 8.1's cannot be subscripted
    _CapacityBase = click.ParamType


class CapacityType(_CapacityBase):
    name = "SLOTS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Capacity:
        if isinstance(value, Capacity):
            return value
        if value in ("default", "recorded"):
            return Capacity(value)
        sizes: dict[str, tuple[int | None, int | None]] = {}  # slots or bytes
        for part in value.split(","):
            pool, _, number = part.rpartition("=")
            size = (int(number), None) if _is_count(number) else (None, _as_bytes(number))
            if pool not in ("", "init", "recur") or size == (None, None):
                self.fail(
                    f"{value!r}: give 'default', 'recorded', N, 'init=N', 'recur=N' or 'init=N,recur=M', where N is a "
                    "number of slots or, with a unit, of bytes: '50MB'",
                    param,
                )
            sizes |= dict.fromkeys((pool,) if pool else ("init", "recur"), size)
        (init, init_bytes), (recur, recur_bytes) = (sizes.get(pool, (None, None)) for pool in ("init", "recur"))
        return Capacity(value, init, recur, init_bytes, recur_bytes)
