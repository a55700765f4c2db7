"""The world model: predictions for the roots and the nodes of a search, each from a cached context."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kvcache.backend import Scope
from kvcache.eviction import SearchInfo
from kvcache.geometry import TOKENS_PER_STEP
from kvcache.threads import exclusively
from kvcache.world_model.cached import CachedPredictor
from kvcache.world_model.config import WorldModelConfig
from kvcache.world_model.inference import Inference, InferenceRequest, in_order
from kvcache.world_model.inputs import numbers, positions
from kvcache.world_model.log import cache_line
from kvcache.world_model.steps import make_step

__all__ = ["FIRST_STEP", "WorldModel"]

_log = logging.getLogger("kvcache.world_model")

FIRST_STEP = -1  # the last action of an environment that has just been reset


class WorldModel(CachedPredictor):
    """A transformer that predicts, from tokens of observations and actions, the next latent, reward, policy and value.

    After UniZero (Pu et al. 2024; LightZero 0.2.0, ``unizero_world_models/world_model.py``): an observation's token
    predicts policy and value, an action's token the next latent and the reward. Inference only: no gradients, no
    target model. Positions are each row's own, however the batch is padded.

    Args:
        config: shapes, seed of the weights, and which cache.

    Attributes:
        inference_observers: each is called before every initial and recurrent inference.

    Raises:
        CompileError: a recurrent inference cannot be compiled, with ``WorldModelConfig.compile``.
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        self.inference_observers: list[Callable[[InferenceRequest], None]] = []
        self._searches = 0
        self._step = make_step(self)

    @property
    def step_counts(self) -> dict[str, int]:
        """Compilations and captures so far, where the configuration asks for them."""
        return self._step.counts

    def weights_changed(self) -> None:
        """As ``CachedPredictor``'s."""
        super().weights_changed()
        self._step.weights_changed()

    @exclusively
    @torch.inference_mode()
    def forward_initial_inference(
        self,
        observations: np.ndarray | Tensor,
        last_latents: np.ndarray | Tensor | None = None,
        last_actions: Sequence[int] | np.ndarray | Tensor | None = None,
        envs: Sequence[int] | None = None,
        timesteps: int | Sequence[int] = 0,
        reanalyzes: bool = False,
    ) -> Inference:
        """Predictions for the roots of new searches: the recurrent cache is cleared.

        Args:
            observations: ``[B, *observation_shape]``.
            last_latents: ``[B, 1, E]``: of the observations one step before, as an earlier inference returned them;
                rows of a first step are not looked at.
            last_actions: ``[B]``: what was done since; ``FIRST_STEP`` where an episode begins. None: everywhere.
            envs: ``[B]``: whose observations these are; None is environments 0, 1, ...
            timesteps: of the observations in their episodes, ``[B]`` or one for all.
            reanalyzes: of old observations, of no environment: nothing is looked up, nothing stored. It is a search
                all the same: the recurrent cache is cleared, and ``cache_log_interval`` counts it.

        Raises:
            ValueError: an argument is not one for each row, of another shape, or out of range; or there are no
                ``last_latents`` for a step that is not the first.
        """
        observations = numbers("observations", observations, self.config.observation_shape)
        rows = len(observations)
        envs = self._environments(envs, rows, reanalyzes)
        start = positions(timesteps, rows)
        if last_latents is not None:
            last_latents = self._latents("last_latents", last_latents, rows)
        last_actions = [FIRST_STEP] * rows if last_actions is None else last_actions
        last_actions = self._actions("last_actions", last_actions, [rows], lowest=FIRST_STEP)
        # Where there is room for one observation and one action, there is no past.
        begins = (last_actions == FIRST_STEP) | (reanalyzes or not self.geometry.keeps_past)
        if last_latents is None and not begins.all():
            row = int(np.argmin(begins))
            raise ValueError(
                f"row {row} is not at its first step: its last_actions, {last_actions[row]}, needs last_latents"
            )
        if self._weights.differ():
            self.weights_changed()
        self._notify(Scope.ROOT, envs, start)
        new = self.tokenizer.encode(self._tensor(observations))
        parts = []
        # A first step is one token, any other two: they cannot share a batch.
        first, later = np.flatnonzero(begins), np.flatnonzero(~begins)
        if len(first):
            self._begin([envs[row] for row in first], start[first], reanalyzes)
            parts.append((first, self._root_inference(new[first], None, last_actions[first])))
        if len(later):
            assert last_latents is not None
            self._begin([envs[row] for row in later], start[later] - 1, reanalyzes)
            parts.append((later, self._root_inference(new[later], last_latents[later], last_actions[later])))
        self._search_begins()
        return in_order(parts, rows)

    def _root_inference(self, new: Tensor, last_latents: np.ndarray | Tensor | None, acted: np.ndarray) -> Inference:
        """Predictions for one batch of roots.

        Args:
            new: ``[B, 1, E]``, of the roots.
            last_latents: ``[B, 1, E]``, of the observations before them; None where an episode begins.
            acted: ``[B]``, the actions between.
        """
        self._acted = acted
        self._retrieve(last_latents, Scope.ROOT)
        sizes = self.trim_and_pad_kv_cache(is_init_infer=True)
        count = 1 if last_latents is None else TOKENS_PER_STEP
        sent = self._sent(acted, count)
        tokens = new if count == 1 else torch.cat([self.tokenizer.embed(sent[:, 0]), new], dim=1)
        output = self._forward(tokens, sent)[:, -1]
        return self._kept(self._columns(new, None, output), sizes, is_root=True)

    def _kept(self, columns: Tensor, sizes: Sequence[int], is_root: bool) -> Inference:
        """Predictions on the host, whose contexts are stored under keys of the latents as they came there."""
        found = self._inference(columns, sizes)
        self.update_cache_context(found.latents, is_init_infer=is_root)
        return found if self._stored is None else replace(found, keys=self._stored)

    def _search_begins(self) -> None:
        self.cache.clear_recur_cache()
        self._searches += 1
        if self.config.enable_cache_logging and self._searches % self.config.cache_log_interval == 0:
            _log.info("%d searches: %s", self._searches, cache_line(self.cache))

    def _notify(self, scope: Scope, envs: list[int], start: np.ndarray, simulation: int | None = None) -> None:
        """Call the observers; ``start`` ``[B]`` is in tokens."""
        if self.inference_observers:
            request = InferenceRequest(scope, envs, (start // TOKENS_PER_STEP).tolist(), simulation)
            for observer in self.inference_observers:
                observer(request)

    @exclusively
    @torch.inference_mode()
    def forward_recurrent_inference(
        self,
        latents: np.ndarray | Tensor,
        actions: Sequence[int] | np.ndarray | Tensor,
        envs: Sequence[int] | None = None,
        simulation_index: int = 0,
        timesteps: int | Sequence[int] = 0,
        reanalyzes: bool = False,
        keys: Sequence[int] | None = None,
        info: SearchInfo | None = None,
    ) -> Inference:
        """Predictions for the states that actions lead to.

        Args:
            latents: ``[B, 1, E]``: of the states in which the actions are taken, as an inference returned them.
            actions: ``[B]``.
            envs: ``[B]``: None is environments 0, 1, ...
            simulation_index: of the search.
            timesteps: of those states, ``[B]`` or one for all: the root's and the depth below it.
            reanalyzes: as in ``forward_initial_inference``.
            keys: ``[B]``, with ``WorldModelConfig.chained_keys``: of the contexts of ``latents``, as an inference
                returned them. Without chained keys they are not looked at.
            info: what the search knows of the rows, for a cache that uses it (``wants_info``).

        Raises:
            ValueError: an argument is not one for each row, of another shape, or out of range; or keys are chained, and
                there are none.
        """
        latents = self._latents("latents", latents)
        rows = len(latents)
        actions, start = self._actions("actions", actions, [rows]), positions(timesteps, rows)
        envs = self._environments(envs, rows, reanalyzes)
        self._notify(Scope.NODE, envs, start, simulation_index)
        self._begin(envs, start + 1, reanalyzes)
        self._acted = actions
        if info is not None:
            vars(self)["_info"] = info
        self._retrieve(latents, Scope.NODE, self._given(keys, rows))
        sizes = self.trim_and_pad_kv_cache(is_init_infer=False)
        if self.geometry.keeps_past:
            columns = self._step(self._sent(actions, TOKENS_PER_STEP), self.keys_values_wm)
        else:
            columns = self._without_past(actions)
        return self._kept(columns, sizes, is_root=False)

    def _without_past(self, actions: np.ndarray) -> Tensor:
        """A simulation where there is no room behind the action: the new latent's context is empty."""
        sent = self._sent(actions, 1)
        acted = self._forward(self.tokenizer.embed(sent[:, 0]), sent)[:, -1]
        new = self.latent_head(acted).unsqueeze(1)
        self._begin(self._envs, self._next_positions + 1, self._reanalyzes)
        self._retrieve(None, Scope.ROOT)
        self.trim_and_pad_kv_cache(is_init_infer=False)
        return self._columns(new, acted, self._forward(new, self._sent(actions, 1))[:, -1])

    def _given(self, keys: Sequence[int] | None, rows: int) -> Sequence[int] | None:
        """The contexts' keys, where keys are chained."""
        if not self.config.chained_keys or not self._looks_up:
            return None
        if keys is None or len(keys) != rows:
            got = "none" if keys is None else len(keys)
            raise ValueError(
                f"chained_keys=True: keys must be those of the {rows} contexts, as Inference.keys has them, got {got}"
            )
        return keys
