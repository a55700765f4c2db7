"""Keys that can be told apart although their numbers are one: each carries a fingerprint of its latent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import xxhash

from kvcache.hashing import Latents, on_host, rows_of

__all__ = ["KeyVerifier", "VerifiedKey"]

_log = logging.getLogger(__name__)


class VerifiedKey(int):
    """A key, and what tells its latent from another one with the same key.

    It is the 64-bit number wherever a number is wanted. Two of them are equal only if their latents are. A plain number
    is equal to none of them: nobody knows which latent it stands for. So a dict of such keys never takes one latent's
    entry for another's.

    Attributes:
        fingerprint: 128 bits of the latent's numbers and shape, from another hash function.
        verifier: counts collisions.
        collided: whether this key met the key of another latent with the same number.
    """

    fingerprint: bytes
    verifier: KeyVerifier
    collided = False

    @classmethod
    def of(cls, number: int, fingerprint: bytes, verifier: KeyVerifier) -> VerifiedKey:
        key = cls(number)
        key.__dict__ = {"fingerprint": fingerprint, "verifier": verifier}  # twice as fast as one by one
        return key

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        if type(other) is not VerifiedKey:
            return False
        if self.fingerprint == other.fingerprint:
            return True
        if int.__eq__(self, other) and not other.collided:  # a dict compares what it holds with what is looked for
            other.collided = True
            self.verifier.note(self)
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other


class KeyVerifier:
    """Makes the keys of one cache, and counts their collisions.

    Attributes:
        collisions: keys that were looked up or stored and met the key of another latent with the same number. Each is a
            miss, or takes a slot of its own.
    """

    def __init__(self) -> None:
        self.collisions = 0
        self._logged = False

    def note(self, key: int) -> None:
        """Count a collision; the first one is logged."""
        self.collisions += 1
        if not self._logged:
            self._logged = True
            _log.warning(
                "two latents have the key %#018x: neither is taken for the other; further collisions are counted and "
                "not logged",
                int(key),
            )

    def verified(self, keys: Sequence[int], latents: Latents) -> list[int]:
        """The keys of latents ``[B, ...]``, each with its latent's fingerprint."""
        latents = on_host(latents)
        seed, rows = _seed(latents.shape[1:]), rows_of(latents)
        digest, of = xxhash.xxh3_128_digest, VerifiedKey.of
        return [of(key, digest(row.data, seed + row.dtype.num), self) for key, row in zip(keys, rows, strict=True)]


@lru_cache
def _seed(shape: tuple[int, ...]) -> int:
    """Of fingerprints: latents of another shape are other latents, and so are those hashed in another type."""
    return xxhash.xxh32_intdigest(str(shape).encode())
