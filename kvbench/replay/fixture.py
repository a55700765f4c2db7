"""A fixture for single operations: a backend with a full recurrent pool, and a batch of rows to look up in it."""

from __future__ import annotations

from itertools import count

import torch

from kvbench.replay.content import Contents
from kvbench.replay.drive import look_up
from kvcache import TOKENS_PER_STEP, CacheBackend, Scope

__all__ = ["Fixture", "WrongContentError"]

_LARGEST = 64  # contents are integers in [-64, 64): exact in every dtype, even with a position's shift added


class WrongContentError(AssertionError):
    """A backend did not return what was stored, so its times do not count."""


class Fixture:
    """A backend whose recurrent pool can be filled, and the contents of its rows. Raises ValueError for short ones."""

    def __init__(self, backend: CacheBackend) -> None:
        config = backend.config
        geometry = config.geometry
        if geometry.slid_size < 1 + 2 * TOKENS_PER_STEP:
            raise ValueError(f"a context of {geometry.context_length} tokens is too short for these operations")
        self.backend = backend
        self.geometry = geometry
        self.envs = list(range(geometry.env_num))
        self.longest_sizes = [geometry.slid_size for _ in self.envs]
        self.unequal_sizes = [geometry.slid_size - TOKENS_PER_STEP * (env % 3) for env in self.envs]
        self._slots = config.recur_pool_size or config.default_recur_pool_size
        backend.position_shift = Contents(geometry).position_shift(config.device, config.dtype)
        shape = (len(self.envs), geometry.num_layers, 2, geometry.num_heads, geometry.context_length, geometry.head_dim)
        generator = torch.Generator().manual_seed(0)
        source = torch.randint(-_LARGEST, _LARGEST, shape, generator=generator, dtype=torch.int8)
        self._source = source.to(device=config.device, dtype=config.dtype)
        self._keys = count(1)

    def require(self, holds: bool, fault: str) -> None:
        """Raise ``WrongContentError`` with the backend's fault unless the condition holds."""
        if not holds:
            raise WrongContentError(f"{self.backend.name}: {fault}")

    def new_keys(self, number: int) -> list[int]:
        """Keys that were never used."""
        return [next(self._keys) for _ in range(number)]

    def filled(self, sizes: list[int]) -> list[int]:
        """Fill the pool, and last store one entry of each size. Returns these entries' keys."""
        rows = len(self.envs)
        for _ in range(rows, self._slots, rows):
            # With other contents: the old content of a slot must not pass for the new one.
            self._put(self.envs, self.geometry.slid_size, negated=True)
        keys = [0] * rows
        for size in sorted(set(sizes)):
            envs = [env for env in self.envs if sizes[env] == size]
            for env, key in zip(envs, self._put(envs, size), strict=True):
                keys[env] = key
        self.check_lookup(keys, sizes)
        return keys

    def _put(self, envs: list[int], size: int, negated: bool = False) -> list[int]:
        """Store a context of that size for each of the environments. Returns their keys."""
        self.fill_batch(envs, size, negated)
        keys = self.new_keys(len(envs))
        self.backend.store(envs, keys, Scope.NODE)
        return keys

    def fill_batch(self, envs: list[int], size: int, negated: bool = False) -> None:
        """Make the batch hold the first tokens of each environment's source, as if a model had appended them."""
        self.backend.lookup(envs, [None] * len(envs), Scope.ROOT)
        self.backend.assemble()
        tokens = self._source[envs, ..., :size, :]
        if negated:
            tokens = -tokens
        for number, layer in enumerate(self.backend.keys_values_wm):
            layer.update(tokens[:, number, 0], tokens[:, number, 1])

    def found_sizes(self, keys: list[int]) -> list[int]:
        """Look the rows up. Returns their sizes, ``MISS`` for a miss."""
        return list(look_up(self.backend, self.envs, keys, Scope.NODE))

    def check_lookup(self, keys: list[int], sizes: list[int]) -> None:
        """Look the rows up, and raise unless they have these sizes."""
        found = self.found_sizes(keys)
        self.require(found == sizes, f"entries of {sizes} tokens were stored, and lookup returned {found}")

    def check_batch(self, sizes: list[int], first: int = 0) -> None:
        """Raise unless each row of the batch has its source's tokens from ``first`` on, and zeros around them."""
        batch, longest = self.backend.keys_values_wm, max(sizes)
        found = list(self.backend.keys_values_wm_size_list)
        self.require(
            found == sizes and batch.size == longest,
            f"rows of {sizes} tokens became a batch of {batch.size}, rows of {found}",
        )
        block, shift = batch.block, self.backend.position_shift
        for env, size in enumerate(sizes):
            wanted = self._source[env, ..., first : first + size, :]
            if first and shift is not None:
                wanted = wanted + shift
            start = self.backend.row_start(env)
            padding = block[env, ..., :start, :], block[env, ..., start + size : longest, :]
            same = torch.equal(block[env, ..., start : start + size, :], wanted)
            self.require(
                same and not any(each.any() for each in padding), f"row {env} of the batch is not what was stored"
            )
