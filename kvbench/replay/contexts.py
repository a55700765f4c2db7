"""Contexts that were made in a replay, recognised by their contents: all rows of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from kvbench.replay.content import Contents, as_batch, extend_context, generated_context, mix, mix_rows
from kvbench.replay.tokens import EMPTY_CONTEXT, Histories, Tokens
from kvcache import CacheConfig, KeysValues

__all__ = ["UNKNOWN", "KnownContexts"]

UNKNOWN = -1  # in place of a context's number
_PADDING = -1  # place of no token


class KnownContexts:
    """Every context that was appended to or generated, by number; ``EMPTY_CONTEXT`` is one of no tokens."""

    def __init__(self, contents: Contents, config: CacheConfig) -> None:
        self._geometry, self._device, self._dtype = config.geometry, config.device, config.dtype
        self._tokens, self._histories = Tokens(contents), Histories()
        # By a token's place in its context; the last one is that of padding.
        self._positions = np.concatenate([contents.positions, np.zeros((1, contents.width), dtype=np.int8)])
        self._any_position = bool(contents.positions.any())
        of_tensor = config.geometry.num_heads * config.geometry.head_dim
        self._named_by = -(-self._tokens.digits // of_tensor)  # tensors that hold a token's number

    def entry(self, context: int) -> tuple[int, int]:
        """The key that the context is of, and its identity."""
        return self._histories.keys[context], self._histories.identities[context]

    def generate(self, key: int) -> torch.Tensor:
        """A new context of one token: ``[L, 2, H, 1, D]``."""
        identity = generated_context(key)
        numbers = self._tokens.add([mix(identity, 0)])
        self._histories.add(EMPTY_CONTEXT, identity, key, numbers.tolist(), (0, 1))
        return self._tensor(numbers, np.zeros(1, dtype=np.int64))

    def extend(self, contexts: Sequence[int], keys: Sequence[int], appended: int) -> torch.Tensor:
        """Append tokens to the contexts of a batch's rows: ``[B, L, 2, H, appended, D]``.

        The new contexts are those of ``keys``, as far as a cache stores them; what UNKNOWN becomes stays unknown.
        """
        known = [max(context, EMPTY_CONTEXT) for context in contexts]
        sizes = [self._histories.sizes[context] for context in known]
        before = [self._histories.identities[context] for context in known]
        identities = [extend_context(context, key) for context, key in zip(before, keys, strict=True)]
        seeds = mix_rows(np.array(identities, dtype=np.uint64)[:, None], np.arange(appended, dtype=np.uint64))
        numbers = self._tokens.add(seeds.ravel().tolist()).reshape(seeds.shape)
        rows = zip(contexts, identities, keys, numbers.tolist(), sizes, strict=True)
        for context, identity, key, new, size in rows:
            if context != UNKNOWN:
                self._histories.add(context, identity, key, new, self._geometry.window(size + appended))
        return self._tensor(numbers, np.array(sizes)[:, None] + np.arange(appended))

    def _tensor(self, numbers: np.ndarray, places: np.ndarray) -> torch.Tensor:
        return as_batch(self._contents(numbers, places), self._geometry, self._device, self._dtype)

    def _contents(self, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Tokens, by their numbers, at their places in a context: ``[..., N]``, int8."""
        contents = self._tokens.contents(numbers)
        if self._any_position:
            contents += self._positions[places]
        return contents

    def recognise(self, batch: KeysValues, starts: np.ndarray, sizes: np.ndarray) -> list[int]:
        """The context that each row of a batch is, zeros around it; UNKNOWN where it is none that was ever made.

        A row's last token says which context it should be. Then every element of the batch is compared.

        Args:
            starts: where each row's first token should be.
            sizes: of each row.
        """
        tensors = _live_tensors(batch, int(sizes.max()))
        width = tensors[0].shape[2]
        contexts = np.where(sizes == 0, EMPTY_CONTEXT, UNKNOWN)
        inside = np.flatnonzero((sizes > 0) & (starts >= 0) & (starts + sizes <= width))
        if len(inside):
            contexts[inside] = self._candidates(tensors, inside, (starts + sizes)[inside] - 1, sizes[inside])
        places = np.arange(width) - starts[:, None]
        live = (places >= 0) & (places < sizes[:, None]) & (contexts > EMPTY_CONTEXT)[:, None]
        numbers = np.zeros(live.shape, dtype=np.int64)
        numbers[live] = list(
            chain.from_iterable(map(self._histories.tokens, contexts[contexts > EMPTY_CONTEXT].tolist()))
        )
        places[~live] = _PADDING
        contexts[_differing_rows(tensors, self._contents(numbers, places))] = UNKNOWN
        found: list[int] = contexts.tolist()
        return found

    def _candidates(
        self, tensors: Sequence[np.ndarray], rows: np.ndarray, last: np.ndarray, sizes: np.ndarray
    ) -> np.ndarray:
        """The contexts that rows should be, by the number that their last tokens say."""
        tokens = np.stack([tensor[rows, :, last] for tensor in tensors[: self._named_by]], axis=1)
        digits = tokens.reshape(len(rows), -1)[:, : self._tokens.digits]
        digits = digits - self._positions[sizes - 1, : self._tokens.digits]
        contexts = self._histories.ending_with(self._tokens.numbers(digits))
        fits = (contexts != EMPTY_CONTEXT) & (self._histories.sizes_of(contexts) == sizes)
        candidates: np.ndarray = np.where(fits, contexts, UNKNOWN)
        return candidates


def _live_tensors(batch: KeysValues, longest: int) -> list[np.ndarray]:
    """K and V of every layer in turn, ``[B, H, longest, D]``, float32."""
    tensors = [tensor.detach()[:, :, :longest] for tensor in batch.layer_tensors()]
    if not tensors[0].is_cpu:
        tensors = list(torch.stack(tensors).to("cpu"))  # one transfer
    return [tensor.to(torch.float32).numpy() for tensor in tensors]


def _differing_rows(tensors: Sequence[np.ndarray], contents: np.ndarray) -> np.ndarray:
    """Which rows of a batch are not ``contents`` ``[B, T, N]``: an element of K or V of any layer is another."""
    rows, heads, width, head_dim = tensors[0].shape
    wanted = contents.reshape(rows, width, len(tensors), heads, head_dim)
    differ = np.zeros(rows, dtype=bool)
    for number, tensor in enumerate(tensors):
        same = tensor == wanted[:, :, number].swapaxes(1, 2)
        if not same.all():
            differ |= ~same.all(axis=(1, 2, 3))
    return differ
