"""Tokens moved by compiled code on a CPU: in one pass, and without scratch memory.

Importing this raises ``ImportError`` where the code was not compiled.
"""

from __future__ import annotations

import torch
from torch import Tensor

import kvcache.kernels._cpu_kernels as compiled
from kvcache.kernels.base import Correction, notify_observers
from kvcache.kernels.torch import TorchKernels

__all__ = ["CpuKernels"]

_OF_A_THREAD = 4 << 20  # bytes: with fewer, starting a thread (20 us) takes a tenth of the time that it saves
# Types that C adds as torch does.
_ADDED = {torch.float32: compiled.FLOAT, torch.float64: compiled.DOUBLE}
if compiled.ADDS_HALVES:
    _ADDED |= {torch.bfloat16: compiled.BFLOAT16, torch.float16: compiled.FLOAT16}


class CpuKernels(TorchKernels):
    """Compiled kernels; torch's where a correction has another type than the tokens, or one that C lacks."""

    def gather(
        self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0, correction: Correction | None = None
    ) -> None:
        if _adds(pool, correction):
            _gather(pool, index, batch, _batch(pool, index, batch, first), correction)
        else:
            super().gather(pool, index, batch, first, correction)

    def move(
        self, pool: Tensor, index: Tensor, batch: Tensor, places: Tensor, correction: Correction | None = None
    ) -> None:
        if _adds(pool, correction):
            if places.shape != index.shape:
                raise ValueError(f"{list(index.shape)} rows cannot be moved to {list(places.shape)} places")
            _check(places)
            _gather(pool, index, batch, (*_batch(pool, index, batch)[:-2], places.data_ptr(), 0), correction)
        else:
            super().move(pool, index, batch, places, correction)

    def scatter(self, pool: Tensor, index: Tensor, batch: Tensor, first: int = 0) -> None:
        target = _batch(pool, index, batch, first)
        nbytes = index.numel() * pool.shape[1] * pool.itemsize
        source = pool.data_ptr(), pool.shape[0], index.data_ptr(), index.numel()
        compiled.scatter(*source, _threads(nbytes), *target)
        notify_observers(pool, nbytes)


def _adds(pool: Tensor, correction: Correction | None) -> bool:
    """Whether C can add the correction to tokens of this pool."""
    return correction is None or (pool.dtype in _ADDED and correction.rows.dtype == pool.dtype)


def _threads(nbytes: int) -> int:
    """How many of torch's threads share a move of so many bytes."""
    return 1 if nbytes < 2 * _OF_A_THREAD else min(torch.get_num_threads(), nbytes // _OF_A_THREAD)


def _gather(pool: Tensor, index: Tensor, batch: Tensor, target: tuple[int, ...], correction: Correction | None) -> None:
    rows, width = pool.shape
    nbytes = index.numel() * width * pool.itemsize
    source = pool.data_ptr(), rows, index.data_ptr(), index.numel(), _threads(nbytes)
    if correction is None:
        compiled.gather(*source, *target)
    else:
        shifts, by = correction
        _check(by, shifts)
        if by.shape not in (index.shape, (len(index), 1)) or shifts.shape[1] != width:
            raise ValueError(f"{list(shifts.shape)}, by {list(by.shape)}, correct no {list(index.shape)} of {width}")
        sharing = 1 if by.shape == index.shape else index.shape[1]
        added = shifts.data_ptr(), shifts.shape[0], by.data_ptr(), sharing, _ADDED[pool.dtype]
        compiled.gather_shifted(*source, *added, *target)
    notify_observers(batch, nbytes)


def _batch(pool: Tensor, index: Tensor, batch: Tensor, first: int = 0) -> tuple[int, ...]:
    """What compiled code is told of a batch. Raises ValueError unless it may take these tensors' addresses."""
    _check(index, pool, batch)
    kinds, rows, heads, tokens, head_dim = batch.shape
    is_dense = index.ndim == 2
    if pool.dtype != batch.dtype or kinds * heads * head_dim != pool.shape[1] or (is_dense and index.shape[1] != rows):
        raise ValueError(
            f"{list(index.shape)} rows of {pool.dtype} {list(pool.shape)} are no {batch.dtype} {list(batch.shape)}"
        )
    return batch.data_ptr(), kinds, rows, heads, tokens, head_dim * batch.itemsize, 0, first


def _check(index: Tensor, *tensors: Tensor) -> None:
    for each in (index, *tensors):
        if not (each.is_cpu and each.is_contiguous()):
            raise ValueError("compiled kernels take addresses of contiguous tensors on the CPU")
    if index.dtype != torch.int64:
        raise ValueError(f"row numbers are int64, got {index.dtype}")
