"""Chained keys: a context is named by its whole history, and not by its last latent alone.

The context of a latent alone has a key of its latent, and of its place where positions are rotary. A longer context has
a key of the context that it extends, of the action and of the new latent. So two contexts of one latent that differ in
any earlier latent or action have two keys.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import xxhash

from kvcache.keys import VerifiedKey

__all__ = ["Chain", "begun", "extended"]

_NUMBER = struct.Struct("<Q")
_PLACE = struct.Struct("<q")


def begun(latent_key: int, position: int = 0) -> int:
    """The key of the context of a latent alone.

    Args:
        latent_key: of the latent, from ``hash_states``.
        position: of the latent, in tokens, where contents depend on it.
    """
    return _chained((latent_key,), _PLACE.pack(position))


def extended(context: int, latent_key: int, action: bytes) -> int:
    """The key of a context after one more step.

    Args:
        context: key of the context before.
        latent_key: of the latent that the step led to, from ``hash_states``.
        action: that was taken; not empty.
    """
    return _chained((context, latent_key), action)


def _chained(keys: tuple[int, ...], last: bytes) -> int:
    number = xxhash.xxh64_intdigest(b"".join(map(_NUMBER.pack, keys)) + last)
    key = keys[-1]
    if not isinstance(key, VerifiedKey):
        return number
    fingerprints = b"".join(each.fingerprint for each in keys if isinstance(each, VerifiedKey))
    return VerifiedKey.of(number, xxhash.xxh3_128_digest(fingerprints + last), key.verifier)


class Chain:
    """The keys of one model's contexts, batch after batch."""

    def __init__(self) -> None:
        self._contexts: list[int | None] = []
        self._roots: dict[int, tuple[tuple[int, int], int]] = {}  # environment -> (latent's key, place), context

    def begin(self, contexts: Sequence[int | None]) -> None:
        """A batch begins: the keys of its rows' contexts ``[B]``; None for a row that begins empty."""
        self._contexts = list(contexts)

    def made(self, rows: Sequence[int], latent_keys: Sequence[int], places: Sequence[int]) -> None:
        """Contexts that were not found were made of their last latents alone: from now on they are named so.

        Args:
            rows: of the batch.
            latent_keys: of these rows.
            places: ``[B]``, as in ``extend``.
        """
        for row, latent_key in zip(rows, latent_keys, strict=True):
            self._contexts[row] = begun(latent_key, places[row])

    def extend(self, latent_keys: Sequence[int], actions: Sequence[bytes], places: Sequence[int]) -> list[int]:
        """The keys of the batch's contexts after one more step.

        Args:
            latent_keys: ``[B]``, of the latents that the step led to, from ``hash_states``.
            actions: ``[B]``, that led there; of rows that began empty they are not looked at.
            places: ``[B]``, of these latents, where contents depend on them; else 0.
        """
        return [
            begun(latent_key, place) if context is None else extended(context, latent_key, action)
            for context, latent_key, action, place in zip(self._contexts, latent_keys, actions, places, strict=True)
        ]

    def put_roots(
        self, envs: Sequence[int], latent_keys: Sequence[int], places: Sequence[int], contexts: Sequence[int]
    ) -> None:
        """Remember the roots of a search, for the next one: columns ``[B]`` as in ``extend``, and what it returned."""
        latents = zip(latent_keys, places, strict=True)
        self._roots |= zip(envs, zip(latents, contexts, strict=True), strict=True)

    def root_of(self, env: int, latent_key: int, place: int) -> int | None:
        """The key of the environment's last root; None if that was of another latent, or elsewhere."""
        last = self._roots.get(env)
        return last[1] if last is not None and last[0] == (latent_key, place) else None

    def after_roots(self, envs: Sequence[int], latent_keys: Sequence[int], places: Sequence[int]) -> list[int]:
        """The keys of contexts that new roots extend: of the last roots, or begun where those were others."""
        contexts = map(self.root_of, envs, latent_keys, places)
        begins = map(begun, latent_keys, places)
        return [begin if context is None else context for context, begin in zip(contexts, begins, strict=True)]
