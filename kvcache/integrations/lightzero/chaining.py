"""Chained keys in LightZero: which node of its search a row goes on from, and the keys of these nodes."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kvcache.chain import Chain, begun, extended
from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError

__all__ = ["SearchChain", "Traversals"]

# Modules of LightZero's searches in C++, and the names of their trees in them.
_TREES = {"mcts_ctree": "tree_muzero", "mcts_ctree_sampled": "tree_sampled_muzero"}

_searches = itertools.count()  # in which replay roots brought their contexts


class Traversals:
    """Notes what LightZero's trees return when they pick the nodes of a simulation. The search does not pass it on.

    Attributes:
        last: of each row of the next recurrent inference: the simulation in which its node was made, counted from 1 (0
            is the root), its row there, and the action. None once it was taken.
    """

    def __init__(self) -> None:
        self.last: list[tuple[int, int, Any]] | None = None
        self._originals: list[tuple[Any, Callable[..., Any]]] = []

    def observe(self) -> None:
        """Begin to note. Twice is once."""
        if self._originals:
            return
        for module, name in _TREES.items():
            tree = getattr(importlib.import_module(f"lzero.mcts.tree_search.{module}"), name)
            self._originals.append((tree, tree.batch_traverse))
            tree.batch_traverse = self._noting(tree.batch_traverse)

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def batch_traverse(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            self.last = list(zip(*found[:3], strict=True))
            return found

        return batch_traverse

    def restore(self) -> None:
        """Put LightZero's own functions back."""
        for tree, original in self._originals:
            tree.batch_traverse = original
        self._originals.clear()
        self.last = None

    def take(self, rows: int) -> list[tuple[int, int, Any]]:
        """The last traversal, once.

        Raises:
            UnsupportedLightZeroError: there was none of so many rows: another search asks.
        """
        last, self.last = self.last, None
        if last is None or len(last) != rows:
            raise UnsupportedLightZeroError(
                "chained_keys=True needs to know which node each row goes on from, and only LightZero's search in C++ "
                f"says so ({', '.join(_TREES)}): set mcts_ctree=True, or leave chained_keys out of world_model_cfg"
            )
        return last


class SearchChain(Chain):
    """The keys of one world model's contexts, search after search.

    Args:
        traversals: of LightZero's searches.
        rotary: whether contents depend on positions.
    """

    def __init__(self, traversals: Traversals, rotary: bool) -> None:
        super().__init__()
        self._traversals = traversals
        self._rotary = rotary
        self._nodes: list[list[tuple[int, int]]] = []  # of each simulation and row: keys of the latent and the context
        self._actions: list[bytes] = []

    def look_up_roots(self, envs: Sequence[int], latent_keys: Sequence[int], positions: Sequence[int]) -> list[int]:
        """The keys of contexts that new roots extend: columns ``[B]`` of their environments, latents and positions."""
        contexts = map(self.root_of, envs, latent_keys, [0] * len(envs))
        return [
            self.alone(latent_key, position) if context is None else context
            for context, latent_key, position in zip(contexts, latent_keys, positions, strict=True)
        ]

    def look_up_nodes(
        self, envs: Sequence[int], latent_keys: Sequence[int], positions: Sequence[int], simulation: int
    ) -> list[int]:
        """The keys of nodes that a simulation goes on from, by the traversal before it.

        A node whose latent is not the one that was stored there has a key of its latent alone, and is a miss.

        Args:
            envs: ``[B]``.
            latent_keys: ``[B]``, from ``hash_states``.
            positions: ``[B]``, at which contexts of these latents alone are made.
            simulation: number within the search.
        """
        if simulation == 0:
            self._nodes.clear()
        traversed = self._traversals.take(len(envs))
        self._actions = [_bytes_of(action) for *_, action in traversed]
        keys = []
        for env, latent_key, position, (number, row, _) in zip(envs, latent_keys, positions, traversed, strict=True):
            if number == 0:
                context = self.root_of(env, latent_key, 0)
            else:
                known, context = self._nodes[number - 1][row]
                context = context if known == latent_key else None
            keys.append(self.alone(latent_key, position) if context is None else context)
        return keys

    def found(
        self, keys: Sequence[int | None], rows: Sequence[int], latent_keys: Sequence[int], positions: Sequence[int]
    ) -> None:
        """A batch begins: of its keys those of ``rows`` were found, the other contexts are made of latents alone."""
        self.begin(keys)
        missed = sorted(set(range(len(keys))) - set(rows))
        self.made(missed, [latent_keys[row] for row in missed], positions if self._rotary else [0] * len(keys))

    def alone(self, latent_key: int, position: int) -> int:
        """The key of the context of a latent alone, made at a position."""
        return begun(latent_key, position if self._rotary else 0)

    def store_roots(
        self, envs: Sequence[int], latent_keys: Sequence[int], actions: Sequence[Any], positions: Sequence[int]
    ) -> list[int]:
        """The keys of new roots' contexts: columns ``[B]``, with the actions that led to them."""
        places = positions if self._rotary else [0] * len(envs)
        keys = self.extend(latent_keys, list(map(_bytes_of, actions)), places)
        self.put_roots(envs, latent_keys, [0] * len(envs), keys)
        return keys

    def store_nodes(self, latent_keys: Sequence[int]) -> list[int]:
        """The keys of the contexts of a simulation's new nodes."""
        keys = self.extend(latent_keys, self._actions, [0] * len(latent_keys))
        self._nodes.append(list(zip(latent_keys, keys, strict=True)))
        return keys

    def store_replayed(self, envs: Sequence[int], latent_keys: Sequence[int]) -> list[int]:
        """The keys of roots that bring contexts of their own: their histories are unknown, so each key is used once."""
        search = next(_searches).to_bytes(8, "little") + b"replayed"
        keys = [extended(begun(latent_key), latent_key, search) for latent_key in latent_keys]
        self.put_roots(envs, latent_keys, [0] * len(envs), keys)
        return keys


def _bytes_of(action: Any) -> bytes:
    return np.asarray(action).tobytes()
