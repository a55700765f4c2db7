"""Contexts that were made in a replay, recognised by their contents: all rows of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kvbench.replay.content import Contents, as_batch
from kvbench.replay.histories import Histories
from kvbench.replay.tokens import Tokens
from kvcache import CacheConfig, KeysValues

__all__ = ["UNKNOWN", "KnownContexts", "Rows", "live_tensors"]

UNKNOWN = -1  # in place of a context's number
_PADDING = -1  # place of no token
_AHEAD = 256  # tokens that are made before they are needed, at once


@dataclass(frozen=True)
class Rows:
    """Rows of batches of one width.

    Attributes:
        tensors: K and V of every layer in turn, ``[2 L, n, H, width, D]``, float32.
        starts: where each row's first token should be.
        sizes: of each row.
    """

    tensors: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray


class KnownContexts:
    """Every context that was appended to or generated, by number; ``EMPTY_CONTEXT`` is one of no tokens."""

    def __init__(self, contents: Contents, config: CacheConfig) -> None:
        self._geometry, self._device, self._dtype = config.geometry, config.device, config.dtype
        self._tokens, self.histories = Tokens(contents), Histories(config.geometry)
        # By a token's place in its context; the last one is that of padding.
        self._positions = np.concatenate([contents.positions, np.zeros((1, contents.width), dtype=np.int8)])
        self._position_tensors = self._tensors(self._positions) if contents.positions.any() else None
        # Where a token's number stands: in which tensors, heads and elements.
        shape = 2 * config.geometry.num_layers, config.geometry.num_heads, config.geometry.head_dim
        self._named_by = np.unravel_index(np.arange(self._tokens.digits), shape)
        self._ahead, self._given = np.zeros(0, dtype=np.int64), 0  # tokens that are made, and given away
        self._ahead_tensors = torch.empty(0)

    def generate(self, key: int) -> torch.Tensor:
        """A new context of one token: ``[L, 2, H, 1, D]``."""
        numbers = self._tokens.add(1)
        self.histories.add_generated(key, int(numbers[0]))
        contents = self._contents(numbers, np.zeros(1, dtype=np.int64))
        return as_batch(contents, self._geometry, self._device, self._dtype)

    def append(self, sizes: np.ndarray, appended: int) -> tuple[np.ndarray, Sequence[torch.Tensor]]:
        """New tokens behind the ``sizes`` of a batch's rows.

        Returns their numbers, ``[B, appended]``, and K and V of every layer in turn, ``[B, H, appended, D]``.
        """
        count = len(sizes) * appended
        if self._given + count > len(self._ahead):
            self._ahead, self._given = self._tokens.add(max(_AHEAD, count)), 0
            self._ahead_tensors = self._tensors(self._tokens.contents(self._ahead))
        chosen = slice(self._given, self._given + count)
        self._given += count
        tensors = self._ahead_tensors[:, chosen]
        if self._position_tensors is not None:
            places = np.minimum(sizes[:, None] + np.arange(appended), self._geometry.context_length - 1)
            added = torch.from_numpy(places.ravel()).to(self._device)
            tensors = tensors + self._position_tensors.index_select(1, added)
        shaped = tensors.view(len(tensors), len(sizes), appended, *tensors.shape[2:]).transpose(2, 3)
        return self._ahead[chosen].reshape(-1, appended), shaped.unbind(0)

    def _tensors(self, contents: np.ndarray) -> torch.Tensor:
        """K and V of every layer in turn of tokens ``[n, N]``: ``[2 L, n, H, D]``."""
        heads, head_dim = self._geometry.num_heads, self._geometry.head_dim
        shaped = np.moveaxis(contents.reshape(len(contents), -1, heads, head_dim), 1, 0)
        return torch.from_numpy(shaped.astype(np.float32, order="C")).to(device=self._device, dtype=self._dtype)

    def _contents(self, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Tokens, by their numbers, at their places in a context: ``[..., N]``, int8."""
        contents = self._tokens.contents(numbers)
        if self._position_tensors is not None:
            contents += self._positions.take(places, axis=0)
        return contents

    def read(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that rows consist of, and whether that is all that they consist of.

        Each token says its number. Then every element of the batch is compared: with what tokens of these numbers are
        at their places, and with zero around them.

        Returns:
            Numbers ``[n, T]``, from the left on, and zeros; and ``[n]``, false where a row is anything else.
        """
        width, starts, sizes = rows.tensors.shape[3], rows.starts[:, None], rows.sizes[:, None]
        inside = ((starts >= 0) & (sizes >= 0) & (starts + sizes <= width)).ravel()
        places = np.arange(width) - starts
        live = (places >= 0) & (places < sizes)
        places = np.where(live, places, _PADDING)
        tensors, heads, elements = self._named_by
        digits = np.moveaxis(rows.tensors[tensors, :, heads, :, elements], 0, -1)
        if self._position_tensors is not None:
            digits -= self._positions[:, : self._tokens.digits].take(places, axis=0)
        numbers = np.where(live, self._tokens.numbers(digits), 0)
        sound = inside & ~_differing_rows(rows.tensors, self._contents(numbers, places))
        found = np.zeros((len(numbers), self._geometry.context_length), dtype=np.int64)
        at, _ = np.nonzero(live)
        found[at, places[live]] = numbers[live]
        return found, sound

    def named(self, tokens: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The contexts that consist of ``tokens`` ``[n, T]``; UNKNOWN where none ever did."""
        ends = tokens[np.arange(len(tokens)), np.maximum(sizes - 1, 0)]
        contexts = self.histories.ending_with(ends)  # the last token says which one it should be
        same = (self.histories.tokens(contexts) == tokens).all(axis=1) & (self.histories.sizes_of(contexts) == sizes)
        found: np.ndarray = np.where(same, contexts, UNKNOWN)
        return found


def live_tensors(batch: KeysValues, longest: int) -> np.ndarray:
    """K and V of every layer in turn, ``[2 L, B, H, longest, D]``, float32: a copy."""
    tensors = batch.layer_tensors()
    if not tensors[0].is_cpu:
        tensors = list(torch.stack([each.detach()[:, :, :longest] for each in tensors]).to("cpu"))  # one transfer
    rows, heads, width, head_dim = tensors[0].shape
    copy = np.empty((len(tensors), rows, heads, min(longest, width), head_dim), dtype=np.float32)
    for place, tensor in zip(copy, tensors, strict=True):
        values = tensor if tensor.dtype == torch.float32 else tensor.to(torch.float32)
        place[...] = values.detach().numpy()[:, :, :longest]
    return copy


def _differing_rows(tensors: np.ndarray, contents: np.ndarray) -> np.ndarray:
    """Which rows of a batch are not ``contents`` ``[B, T, N]``: an element of K or V of any layer is another."""
    _, rows, heads, width, head_dim = tensors.shape
    wanted = contents.reshape(rows, width, len(tensors), heads, head_dim)
    differ = np.zeros(rows, dtype=bool)
    for number, tensor in enumerate(tensors):
        same = tensor == wanted[:, :, number].swapaxes(1, 2)
        if not same.all():
            differ |= ~same.all(axis=(1, 2, 3))
    return differ
