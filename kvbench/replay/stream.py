"""Requests without end on one backend, each of them checked: what one call in 10,000 does wrong shows here.

A replay checks a recorded search. A stream makes its requests as it goes, the same on any machine, and costs some tens
of microseconds a request. So it can be repeated thousands of times, on small and on large pools.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from kvbench.replay.content import Contents, as_batch, latents_of, mix_rows
from kvbench.replay.fixture import WrongContentError
from kvcache import MISS, TOKENS_PER_STEP, CacheBackend, CacheConfig, Geometry, KeysValues, Scope, hash_state

__all__ = ["GEOMETRY", "PERIOD", "Stream", "just_call", "stream_config"]

# Small, since it is asked often. Most contexts of a stream are so long that their windows slide.
GEOMETRY = Geometry("stream", 1, 1, 32, 10, 2, 50, "absolute")
LOOKUPS_PER_STORE = 8
LOOKUPS_PER_MISS = 32  # of a row: one in so many asks for a key that was evicted
OLD = 2  # times as many stores as there are slots, after which a key is evicted by every strategy
_FILLING = 64  # rows of a batch with which the pool is filled
PERIOD = 512  # lookups after which the same places of the pool are asked for again
_AHEAD = 1024  # numbers, tokens and latents that are made at once
_UNKNOWN_KEY = -5


def stream_config(slots: int, **settings: Any) -> CacheConfig:
    """The configuration of a backend for a stream, with so many slots in its recurrent pool; FIFO if not set."""
    return CacheConfig(GEOMETRY, init_pool_size=1, recur_pool_size=slots, **({"eviction_strategy": "fifo"} | settings))


def just_call(operation: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """Neither counted nor timed."""
    return call(*arguments)


class Stream:
    """Inferences on a backend that was built from ``stream_config``, one after another. Its pool is full at once.

    Rows ask for contexts that were stored lately, and now and then for one that was evicted long ago. Newer entries
    have higher priorities. So the newer half of the pool is there whatever the strategy, and the number of evictions is
    the same. Everything found is compared, element by element and padding included. It holds a fixed amount of memory.

    Args:
        backend: fresh.
        meter: makes each call of the backend, given the operation, the call and its arguments.

    Attributes:
        faults: what was wrong, each with its place.
        lookups: so far: each is one batch.
    """

    def __init__(self, backend: CacheBackend, meter: Callable[..., Any] = just_call) -> None:
        config, geometry = backend.config, backend.config.geometry
        assert config.recur_pool_size is not None
        self.backend, self.meter = backend, meter
        self.faults: list[str] = []
        self.lookups = 0
        self._geometry, self._slots = geometry, config.recur_pool_size
        contents = Contents(geometry)
        backend.position_shift = contents.position_shift(config.device, config.dtype)
        self._positions = _layers(contents.positions, geometry)
        self._tokens = _layers(contents.tokens(np.arange(_AHEAD)), geometry)
        self._random = mix_rows(np.arange(PERIOD * geometry.env_num, dtype=np.uint64)).tolist()
        # Of the entries stored last, each at its number's remainder.
        tensors, heads, *context = self._positions.shape
        self._entries = np.zeros((self._slots, tensors, heads, *context), dtype=np.float32)
        self._wanted = np.zeros((tensors, _FILLING, heads, *context), dtype=np.float32)
        self._sizes, self._keys = [0] * self._slots, [_UNKNOWN_KEY] * ((OLD + 1) * self._slots)
        self._stored = 0
        self._latents, self._hashes = torch.empty(0), list[int]()
        self._envs = [row % geometry.env_num for row in range(_FILLING if self._slots % _FILLING == 0 else 2)]
        while self._stored < self._slots:
            rows = range(self._stored - len(self._envs), self._stored)
            self._infer([number if self._stored else None for number in rows], stores=True)
        self._envs = list(range(geometry.env_num))
        self.lookups = 0

    def run(self, lookups: int) -> None:
        """So many lookups."""
        for _ in range(lookups):
            self._infer([self._asked(env) for env in self._envs], stores=self.lookups % LOOKUPS_PER_STORE == 0)

    def require_sound(self) -> None:
        """Raise WrongContentError if anything was wrong so far."""
        if self.faults:
            raise WrongContentError(f"{self.backend.name}: {self.faults[0]}")

    def _asked(self, env: int) -> int:
        """The number of the entry that a row asks for; of one that was evicted where it is not among the last."""
        random: int = self._random[(self.lookups * len(self._envs) + env) % len(self._random)]
        among = random // LOOKUPS_PER_MISS % max(1, self._slots // 2)
        return self._stored - 1 - among - (random % LOOKUPS_PER_MISS == 0) * OLD * self._slots

    def _infer(self, asked: list[int | None], stores: bool) -> None:
        """One lookup of all rows, checked; ``asked`` are numbers of entries, None for a row that starts empty."""
        backend = self.backend
        keys = [None if number is None else self._keys[number % len(self._keys)] for number in asked]
        found = self.meter("lookup", backend.lookup, self._envs, keys, Scope.NODE)
        contexts = [self._context(number) for number in asked]
        for row, context in enumerate(contexts):
            size = MISS if context is None else context.shape[2]
            if found[row] != size:
                self._fault(row, f"{size} tokens were stored, and lookup returned {found[row]}")
            if found[row] == MISS:
                contexts[row] = self._supply(row)
            elif context is None:
                contexts[row] = self._positions[:, :, :0]
        self.meter("assemble", backend.assemble)
        sound = [context for context in contexts if context is not None]
        self._check(sound)
        if stores:
            self._store(sound)
        self.lookups += 1

    def _context(self, number: int | None) -> np.ndarray | None:
        """The tokens ``[2 L, H, n, D]`` of an entry, without their positions; None of one that was evicted."""
        if number is None:
            return self._positions[:, :, :0]
        if self._stored - number > self._slots:
            return None
        place = number % self._slots
        context: np.ndarray = self._entries[place, :, :, : self._sizes[place]]
        return context

    def _supply(self, row: int) -> np.ndarray:
        """Make a context of one token, as a model does after a miss."""
        token = self._new_tokens(row, 1)
        block = np.zeros((*token.shape[:2], self._geometry.context_length, self._geometry.head_dim), dtype=np.float32)
        block[:, :, :1] = token + self._positions[:, :, :1]
        whole = torch.from_numpy(block).view(1, -1, 2, *block.shape[1:])
        self.backend.supply(row, KeysValues.from_block(whole, size=1))
        return token

    def _new_tokens(self, row: int, count: int) -> np.ndarray:
        """``[2 L, H, count, D]``; no two of the last ones are alike."""
        first = (TOKENS_PER_STEP * (self._stored + row)) % (_AHEAD - TOKENS_PER_STEP)
        return self._tokens[:, :, first : first + count]

    def _check(self, contexts: list[np.ndarray]) -> None:
        """Compare the batch with what its rows should be, and zeros around them."""
        sizes = [context.shape[2] for context in contexts]
        longest, wanted = max(sizes), self._wanted[:, : len(sizes)]
        wanted.fill(0)
        for row, (context, size) in enumerate(zip(contexts, sizes, strict=True)):
            start = self.backend.row_start(row)
            wanted[:, row, :, start : start + size] = context
            wanted[:, row, :, start : start + size] += self._positions[:, :, :size]
        for tensor, right in zip(self.backend.keys_values_wm.layer_tensors(), wanted, strict=True):
            same = tensor.numpy()[:, :, :longest] == right[:, :, :longest]
            if not same.all():
                self._fault(int((~same).nonzero()[0][0]), "the batch is not what was stored")

    def _store(self, contexts: list[np.ndarray]) -> None:
        """Append tokens to all rows, and store them under new keys."""
        appended = [self._new_tokens(row, TOKENS_PER_STEP) for row in self._envs]
        placed = [
            tokens + self._positions[:, :, (size := context.shape[2]) : size + TOKENS_PER_STEP]
            for context, tokens in zip(contexts, appended, strict=True)
        ]
        batch = torch.from_numpy(np.stack(placed, axis=1))
        for layer, pair in zip(self.backend.keys_values_wm, batch.view(-1, 2, *batch.shape[1:]), strict=True):
            layer.update(*pair)
        latents, keys = self._new_latents()
        if list(hashed := self.meter("hash", self.backend.hash_states, latents)) != keys:
            self._fault(0, "hash_states returned other keys than hash_state")
        priorities = [float(self._stored + row) for row in self._envs]
        self.meter("store", self.backend.store, self._envs, hashed, Scope.NODE, priorities)
        for context, tokens, key in zip(contexts, appended, hashed, strict=True):
            whole = np.concatenate([context, tokens], axis=2)
            first, count = self._geometry.window(whole.shape[2])
            place = self._stored % self._slots
            self._entries[place, :, :, :count] = whole[:, :, first : first + count]
            self._sizes[place], self._keys[self._stored % len(self._keys)] = count, key
            self._stored += 1

    def _new_latents(self) -> tuple[torch.Tensor, list[int]]:
        """Latents of a batch that were not there before, ``[B, 1, E]``, and their keys."""
        rows, first = len(self._envs), self._stored % _AHEAD
        if first == 0:
            seeds = range(self._stored, self._stored + _AHEAD)
            self._latents = torch.from_numpy(latents_of(seeds, self._geometry.embed_dim)[:, None])
            self._hashes = [hash_state(each) for each in self._latents]
        return self._latents[first : first + rows], self._hashes[first : first + rows]

    def _fault(self, row: int, what: str) -> None:
        self.faults.append(f"lookup {self.lookups}, env {row}: {what}")


def _layers(tokens: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Tokens ``[n, N]`` as a batch has them: ``[2 L, H, n, D]``, float32."""
    block: np.ndarray = as_batch(tokens, geometry, "cpu", torch.float32).flatten(0, 1).numpy()
    return block
