"""The parts of a manager, chosen by the storage's name: the storages of its pools, and their batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from kvcache.batch import Batch, RowBatch
from kvcache.batch.resident import ResidentBatch
from kvcache.batch.tokens import TokenBatch
from kvcache.config import CacheConfig
from kvcache.kernels import make_kernels
from kvcache.storage import STORAGES, EntrySpec, PagedStorage, Pages, Slab, SlabStorage, Storage

__all__ = ["AUTO", "Layout", "chosen_storage", "make_layout"]

AUTO = "auto"
# From this many context tokens on "auto" keeps the batch resident. With fewer, finding the changed tokens takes longer
# than moving all of them (benchmarks/claims.py storages).
_RESIDENT_FROM = 32


@dataclass(frozen=True)
class Layout:
    """One batch, and factories for the storages of its pools.

    Attributes:
        batch: where batches are assembled.
        init_pool_size: slots of each environment's init pool.
        recur_pool_size: slots of the recurrent pool.
        init_storage: makes the storage of an init pool.
        recur_storage: makes that of the recurrent pool.
        wm_storage: makes that of the scratch pool.
    """

    batch: Batch
    init_pool_size: int
    recur_pool_size: int
    init_storage: Callable[[], Storage]
    recur_storage: Callable[[], Storage]
    wm_storage: Callable[[], Storage]


def chosen_storage(config: CacheConfig) -> CacheConfig:
    """The configuration with "auto" replaced by a storage.

    Raises:
        ValueError: no storage has that name, or it cannot have a resident batch.
    """
    if config.storage == AUTO:
        resident = config.resident_batch or config.geometry.context_length >= _RESIDENT_FROM
        config = replace(config, storage="paged", resident_batch=resident)
    if config.storage not in STORAGES:
        raise ValueError(f"unknown storage {config.storage!r}: choose one of {', '.join((*STORAGES, AUTO))}")
    if config.resident_batch and config.storage != "paged":
        raise ValueError(f"storage {config.storage!r} has no resident batch: only 'paged' has one")
    return config


def make_layout(config: CacheConfig) -> Layout:
    """The layout of a configuration. Raises ValueError as ``chosen_storage`` does."""
    config = chosen_storage(config)
    return {"slab": _slab, "paged": _paged}.get(config.storage, _rows)(config)


def _entry_spec(config: CacheConfig) -> EntrySpec:
    geometry = config.geometry
    shape = (geometry.num_layers, 2, geometry.num_heads, geometry.context_length, geometry.head_dim)
    # A device as tensors name it: "cuda" is "cuda:0" there.
    return EntrySpec(shape, config.dtype, torch.empty(0, device=config.device).device)


def _rows(config: CacheConfig) -> Layout:
    spec = _entry_spec(config) if config.checks_entries else None
    storage = STORAGES[config.storage]
    init, recur, wm = config.init_entries, config.recur_entries, config.geometry.env_num
    return Layout(
        RowBatch(config.geometry, _entry_spec(config)),
        init,
        recur,
        lambda: storage(init, spec),
        lambda: storage(recur, spec),
        lambda: storage(wm, spec),
    )


def _slab(config: CacheConfig) -> Layout:
    spec = _entry_spec(config)
    memory = Slab(spec if config.checks_entries else None)
    init, recur, wm = config.init_entries, config.recur_entries, config.geometry.env_num
    return Layout(
        TokenBatch(config.geometry, memory, spec, make_kernels(config.device), config.exact),
        init,
        recur,
        # Most init pools are never full.
        lambda: SlabStorage(init, spec, memory, reserves=False),
        lambda: SlabStorage(recur, spec, memory),
        lambda: SlabStorage(wm, spec, memory, reserves=False),
    )


def _paged(config: CacheConfig) -> Layout:
    spec = _entry_spec(config)
    memory = Pages(spec if config.checks_entries else None)
    # LightZero pads rows in front; a resident batch cannot.
    batch = ResidentBatch if config.resident_batch and not config.exact else TokenBatch
    page_bytes = config.geometry.entry_bytes(config.dtype.itemsize) // config.geometry.context_length

    def pages(limit: int | None) -> int | None:
        return None if limit is None else limit // page_bytes

    init_pages, recur_pages = pages(config.init_pool_bytes), pages(config.recur_pool_bytes)
    init = config.init_entries if init_pages is None else init_pages
    recur = config.recur_entries if recur_pages is None else recur_pages
    wm = config.geometry.env_num
    return Layout(
        batch(config.geometry, memory, spec, make_kernels(config.device), config.exact),
        init,
        recur,
        lambda: PagedStorage(init, spec, memory, False, init_pages),
        lambda: PagedStorage(recur, spec, memory, True, recur_pages),
        lambda: PagedStorage(wm, spec, memory, False),
    )
