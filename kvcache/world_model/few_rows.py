"""Linear layers of a few rows on a CPU: torch's own results, to the bit, in half the time.

A search infers few states at once, and torch's product takes two to three times as long as reading the weights. That of
``_few_rows.c`` adds in the same order, where torch's order is one it knows: this is tried once for each shape.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

try:
    import kvcache.world_model._few_rows as _imported
except ImportError:  # not compiled
    compiled: ModuleType | None = None
else:
    compiled = _imported if _imported.SUPPORTED else None

__all__ = ["FewRows", "suits"]

SMALLEST = 1 << 16  # numbers of a weight: with fewer, a call takes longer than the product
# Inputs that a sum has before it is added to the others: libraries choose it by the processor and the shape.
_BLOCKS = (192, 128, 256, 384, 96, 512)


def suits(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a layer with such weights may be a ``FewRows``."""
    if compiled is None or bias is None or weight.numel() < SMALLEST:
        return False
    return all(each.is_cpu and each.dtype == torch.float32 and each.is_contiguous() for each in (weight, bias))


class FewRows:
    """``F.linear`` with these weights.

    Args:
        weight: ``[outer, inner]``.
        bias: ``[outer]``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias
        self._places = weight.data_ptr(), bias.data_ptr()

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., inner]`` to ``[..., outer]``."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.get_num_threads() > 1:
            return F.linear(x, self._weight, self._bias)
        outer, inner = self._weight.shape
        *shape, width = x.shape
        rows, block = x.numel() // inner, 0
        # Not what has since been put into the place of the weights: it may be of any type.
        if width == inner and x.is_cpu and self._places == (self._weight.data_ptr(), self._bias.data_ptr()):
            block = _block(rows, inner, outer)
        if not block or x.dtype != torch.float32 or not x.is_contiguous():
            return F.linear(x, self._weight, self._bias)
        out = torch.empty((*shape, outer), dtype=torch.float32, device=x.device)
        _multiply(out, x, self._weight, self._bias, rows, block)
        return out


def _multiply(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, rows: int, block: int) -> None:
    assert compiled is not None
    outer, inner = weight.shape
    places = out.data_ptr(), x.data_ptr(), weight.data_ptr(), bias.data_ptr()
    compiled.linear(*places, rows, inner, outer, block)


@cache
def _block(rows: int, inner: int, outer: int) -> int:
    """The block with which the compiled product has the bits of torch's, for this shape and one thread; 0: none."""
    if compiled is None or not 0 < rows <= compiled.ROWS:
        return 0
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float32)
        for shape in ((rows, inner), (outer, inner), (outer,))
    )
    wanted, found = F.linear(x, weight, bias), torch.empty(rows, outer, dtype=torch.float32)
    for block in (inner, *(each for each in _BLOCKS if each < inner)):
        _multiply(found, x, weight, bias, rows, block)
        if torch.equal(found, wanted):
            return block
    return 0
