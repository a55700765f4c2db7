"""Contexts in a cache: the three methods by which the model's inference uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.backend import EMPTY, MISS, Scope
from kvcache.chain import Chain
from kvcache.eviction import SearchInfo
from kvcache.keys_values import KeysValues
from kvcache.threads import exclusively
from kvcache.world_model.config import WorldModelConfig
from kvcache.world_model.direct import prepare
from kvcache.world_model.inputs import environments, whole_numbers
from kvcache.world_model.predictor import Predictor
from kvcache.world_model.weights import WeightsWatch

__all__ = ["CachedPredictor"]


class CachedPredictor(Predictor):
    """Networks and a cache: contexts are retrieved, put into one batch, and stored.

    Args:
        config: shapes, seed of the weights, and which cache.

    Attributes:
        cache: the cache in use. Replace it by an ``ObservedCache`` of it to observe its calls.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        self.cache = config.make_cache()
        # Of the present batch, row by row: the environment, and the next token's position in the episode.
        self._envs: list[int] = []
        self._next_positions = np.zeros(0, dtype=np.int64)
        self._reanalyzes = False
        self._is_assembled = False
        # With chained keys: the actions that extend the batch's contexts, and the keys these are stored under.
        self._chain = Chain() if config.chained_keys else None
        self._acted: np.ndarray = np.zeros(0, dtype=np.int64)
        self._stored: list[int] | None = None
        self._info: SearchInfo | None = None  # what the search knows of the batch
        self._weights = WeightsWatch(self)
        self.cache.position_shift = self.transformer.position_shift()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As ``torch.nn.Module``'s; the caches are cleared, since nothing in them was computed with these weights."""
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        finally:
            self.weights_changed()  # torch copies the fitting weights before it raises for missing ones

    @exclusively
    def weights_changed(self) -> None:
        """Forget what was computed with other weights: contexts, and corrections of positions.

        Every inference calls this by itself where it notices a change (see ``WeightsWatch``). Call it after a change
        that torch cannot count, such as a write through ``.data`` to a part of a tensor.
        """
        prepare(self)
        self._weights.remember()
        self.cache.clear_all()
        self.cache.position_shift = self.transformer.position_shift()
        self._is_assembled = False

    @property
    def keys_values_wm(self) -> KeysValues:
        """The batch cache, ``[B, H, T, D]`` per layer."""
        return self.cache.keys_values_wm

    @property
    def keys_values_wm_list(self) -> list[KeysValues | None]:
        """The context of each row ``[B]`` before it is put into the batch cache; None for a row that begins empty."""
        return list(self.cache.keys_values_wm_list)

    @property
    def keys_values_wm_size_list(self) -> list[int]:
        """Tokens of each row's context ``[B]``."""
        return list(self.cache.keys_values_wm_size_list)

    def retrieve_or_generate_kvcache(
        self,
        latent_state: np.ndarray | Tensor,
        ready_env_num: int,
        simulation_index: int = 0,
        start_pos: int | Sequence[int] | np.ndarray = 0,
        envs: Sequence[int] | None = None,
        reanalyzes: bool = False,
    ) -> list[int]:
        """Look up each row's context, init then recurrent; where there is none, make one of the latent alone.

        Begins a batch: see ``keys_values_wm_list`` and ``keys_values_wm_size_list``.

        Args:
            latent_state: ``[B, 1, E]``.
            ready_env_num: rows, B.
            simulation_index: of the search; nothing depends on it.
            start_pos: positions of the latents in their episodes, ``[B]`` or one for all, in tokens.
            envs: ``[B]``: whose latents these are; None is environments 0, 1, ...
            reanalyzes: nothing is looked up, and nothing of this batch will be stored; ``envs`` are not looked at.

        Returns:
            The rows' sizes ``[B]``, in tokens.

        Raises:
            ValueError: an argument is not one for each row, or out of range; or keys are chained, which needs the
                actions too: ``forward_recurrent_inference`` has them.
        """
        if self._chain is not None:
            raise ValueError(
                "chained_keys=True: retrieve_or_generate_kvcache does not know the history of a latent: call "
                "forward_initial_inference and forward_recurrent_inference"
            )
        latent_state = self._latents("latent_state", latent_state)
        if len(latent_state) != ready_env_num:
            raise ValueError(f"ready_env_num is {ready_env_num}, and latent_state has {len(latent_state)} rows")
        envs = self._environments(envs, ready_env_num, reanalyzes)
        start = whole_numbers("start_pos", start_pos, [ready_env_num], one_for_all=True)
        self._begin(envs, start + 1, reanalyzes)
        self._retrieve(latent_state, Scope.NODE)
        return self.keys_values_wm_size_list

    def trim_and_pad_kv_cache(self, is_init_infer: bool = True) -> list[int]:
        """Put the rows' contexts into ``keys_values_wm``, padded to the longest.

        Args:
            is_init_infer: of which inference; nothing depends on it.

        Returns:
            The rows' sizes ``[B]``, in tokens.

        Raises:
            RuntimeError: no contexts were retrieved since the caches were cleared.
        """
        if not self.cache.keys_values_wm_size_list:
            raise RuntimeError("there are no contexts to align: call retrieve_or_generate_kvcache first")
        self.cache.assemble()
        self._is_assembled = True
        return self.keys_values_wm_size_list

    def update_cache_context(self, latent_state: np.ndarray | Tensor, is_init_infer: bool = True) -> None:
        """Store each row's context, as the batch cache has it now, under its new latent's key.

        Nothing where a context has no room for a past, and nothing of a batch that reanalyzes.

        Args:
            latent_state: ``[B, 1, E]``, of the environments that the batch was retrieved for.
            is_init_infer: into the environments' own caches; else into the recurrent one.

        Raises:
            ValueError: there is not one latent for each row of the batch.
            RuntimeError: no batch was assembled since the last contexts were retrieved.
        """
        if not self._is_assembled:
            raise RuntimeError("there is no batch to store: call trim_and_pad_kv_cache first")
        latent_state = self._latents("latent_state", latent_state, len(self._envs))
        if self._looks_up:
            scope, keys = Scope.ROOT if is_init_infer else Scope.NODE, self.cache.hash_states(latent_state)
            if self._chain is not None:
                keys = self._stored = self._chained(self._chain, keys, is_init_infer)
            if self.wants_info:
                self.cache.store(self._envs, keys, scope, None, self._known(is_init_infer))
            else:
                self.cache.store(self._envs, keys, scope)

    @exclusively
    def clear_caches(self) -> None:
        """Forget all contexts, and the batch."""
        if self._weights.differ():
            self.weights_changed()
        self.cache.clear_all()
        self._is_assembled = False

    @property
    def wants_info(self) -> bool:
        """Whether the cache uses what a search knows: ``forward_recurrent_inference`` takes it then."""
        return self.cache.wants_info

    # Parts of them.

    def _known(self, is_root: bool) -> SearchInfo:
        """What is known of the rows to be stored."""
        if is_root:
            return SearchInfo(depths=[0] * len(self._envs), actions=self.config.action_space_size)
        return self._info or SearchInfo(actions=self.config.action_space_size)

    def _environments(self, envs: Sequence[int] | None, rows: int, reanalyzes: bool) -> list[int]:
        """The environment of each row ``[B]``."""
        if reanalyzes:  # old observations are of no environment, and may be more than there are
            return environments([0] * rows, rows, 1)
        return environments(envs, rows, self.geometry.env_num)

    def _begin(self, envs: list[int], next_positions: np.ndarray, reanalyzes: bool) -> None:
        """Begin a batch: its environments ``[B]``, and the next tokens' positions in their episodes ``[B]``."""
        if self._weights.touched():
            self.weights_changed()
        # Each by itself passes through torch.nn.Module's search for parameters and modules.
        vars(self).update(_envs=envs, _next_positions=next_positions, _reanalyzes=reanalyzes, _stored=None, _info=None)

    def _retrieve(self, latents: np.ndarray | Tensor | None, scope: Scope, given: Sequence[int] | None = None) -> None:
        """Look up contexts, and make those that are not there.

        Args:
            latents: that they end with, ``[B, 1, E]``; None: all begin empty.
            scope: as in ``CacheBackend.lookup``.
            given: chained keys of the contexts ``[B]``; None for roots.
        """
        keys: Sequence[int | None] = [None] * len(self._envs)
        if latents is not None and self._looks_up:
            keys = self._context_keys(latents) if given is None else given
        found = self.cache.lookup(self._envs, keys, scope)
        self._is_assembled = False
        if latents is not None:
            self._generate(latents, found)
        if self._chain is not None:
            made = [row for row, size in enumerate(found) if size == MISS]
            self._chain.begin(keys)
            if made and latents is not None:
                self._chain.made(made, self.cache.hash_states(latents[made]), self._places(-1))

    @property
    def _looks_up(self) -> bool:
        """Whether contexts of the present batch are looked up and stored."""
        return self.geometry.keeps_past and not self._reanalyzes

    def _context_keys(self, latents: np.ndarray | Tensor) -> Sequence[int]:
        """Keys of the contexts that new roots extend, which end with latents ``[B, 1, E]``."""
        keys = self.cache.hash_states(latents)
        return keys if self._chain is None else self._chain.after_roots(self._envs, keys, self._places(-1))

    def _chained(self, chain: Chain, latent_keys: Sequence[int], is_root: bool) -> list[int]:
        """Keys of the batch's contexts, each one step longer, by the new latents' own keys ``[B]``."""
        appended = self.cache.keys_values_wm.size - max(self.cache.keys_values_wm_size_list)
        places = self._places(appended - 1)
        keys = chain.extend(latent_keys, [each.tobytes() for each in self._acted], places)
        if is_root:
            chain.put_roots(self._envs, latent_keys, places, keys)
        return keys

    def _places(self, offset: int) -> list[int]:
        """Positions ``[B]`` of the rows' next tokens in their episodes, and so far on; 0 where contents have none."""
        if self.geometry.positions == "absolute":
            return [0] * len(self._envs)
        return [int(position) + offset for position in self._next_positions]

    def _generate(self, latents: np.ndarray | Tensor, found: Sequence[int]) -> None:
        """Supply what was not found: contexts of one token.

        Args:
            latents: ``[B, 1, E]``.
            found: tokens of each row's context ``[B]``, ``MISS`` or ``EMPTY``.
        """
        for row, size in enumerate(found):
            if size in (MISS, EMPTY):
                context = self._empty(1)
                position = self._next_positions[row] - 1 if self.geometry.positions == "rotary" else 0
                positions = self._staging.send(torch.tensor([[int(position)]]))
                self.transformer(self._tensor(latents[row : row + 1]), positions, context)
                self.cache.supply(row, context)

    def _sent(self, actions: np.ndarray, tokens: int) -> Tensor:
        """Numbers that the device needs for an assembled batch, in one copy: see ``simulate``.

        Args:
            actions: ``[B]``.
            tokens: that will be appended to each row.
        """
        sizes, columns = np.array(self.cache.keys_values_wm_size_list), [actions]
        starts = self._next_positions if self.geometry.positions == "rotary" else sizes
        columns += [starts + token for token in range(tokens)]
        if self.config.mask_padding and sizes.min() < sizes.max():
            begins = np.array([self.cache.row_start(row) for row in range(len(sizes))])
            columns += [begins, begins + sizes]
        return self._staging.send(torch.from_numpy(np.stack(columns, axis=1)))

    def _forward(self, tokens: Tensor, sent: Tensor) -> Tensor:
        """Outputs ``[B, n, E]`` of tokens ``[B, n, E]`` that are appended to the batch just assembled."""
        batch, count = self.cache.keys_values_wm, tokens.shape[1]
        padding = self._padding(sent, batch.size, batch.size)
        output: Tensor = self.transformer(tokens, sent[:, 1 : 1 + count], batch, padding)
        return output
