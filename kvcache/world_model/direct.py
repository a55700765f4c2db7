"""Networks called directly: without torch.nn.Module's lookups and checks, which take as long as small layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Call", "DirectModule", "direct", "is_plain", "linear", "prepare"]

Call = Callable[..., Tensor]


def direct(module: nn.Module) -> Call:
    """What a module computes, as a function bound to its weights; for one that is not of torch's, a call of it.

    Writes to the weights are seen. Other tensors, parts or hooks in the module are not: see ``prepare``.
    """
    if _is_hooked(module):
        return module.__call__
    if type(module) is nn.Linear:
        return linear(module.weight, module.bias)
    if type(module) is nn.LayerNorm:
        shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)  # a partial's keywords take a third longer
    if type(module) is nn.GELU:
        return partial(F.gelu, approximate=module.approximate)
    if type(module) is nn.Embedding and module.max_norm is None:
        return partial(torch.embedding, module.weight)
    return module.forward if isinstance(module, DirectModule) else module.__call__


def linear(weight: Tensor, bias: Tensor | None) -> Call:
    """A linear layer with these weights."""
    return partial(F.linear, weight=weight, bias=bias)


def is_plain(module: nn.Module) -> bool:
    """Whether a module is torch's linear layer, and nothing else happens when it is called."""
    return type(module) is nn.Linear and not _is_hooked(module)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class DirectModule(nn.Module):
    """A module that calls its parts directly."""

    def bind(self) -> Any:
        """The functions that ``forward`` calls, of the parts and weights as they are now."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Bind the functions anew."""
        self._calls = self.bind()

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.prepare()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_calls"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.prepare()


def prepare(model: nn.Module) -> None:
    """Bind all functions of a model anew, after a part or a weight was replaced by another, or a hook came or went."""
    for module in model.modules():
        if isinstance(module, DirectModule):
            module.prepare()
