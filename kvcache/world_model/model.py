"""The world model: what it predicts, and the three methods by which its inference uses a cache (SPEC 3.3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kvcache.backend import EMPTY, MISS, CacheBackend, Scope
from kvcache.geometry import TOKENS_PER_STEP
from kvcache.keys_values import KeysValues
from kvcache.legacy import LegacyCache
from kvcache.shadow import ShadowCache
from kvcache.world_model.config import WorldModelConfig
from kvcache.world_model.inference import Inference, in_order
from kvcache.world_model.inputs import environments, numbers, positions, whole_numbers
from kvcache.world_model.tokenizer import Tokenizer
from kvcache.world_model.transformer import Transformer

__all__ = ["FIRST_STEP", "WorldModel", "cache_line"]

_log = logging.getLogger("kvcache.world_model")

FIRST_STEP = -1  # the last action of an environment that has just been reset


class Head(nn.Sequential):
    """A perceptron on one token's output: ``[B, E]`` to ``[B, width]``."""

    def __init__(self, embed_dim: int, width: int, *behind: nn.Module) -> None:
        super().__init__(nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, width), *behind)


class WorldModel(nn.Module):
    """A transformer that predicts, from tokens of observations and actions, the next latent, reward, policy and value.

    After UniZero (Pu et al. 2024; LightZero 0.2.0, ``unizero_world_models/world_model.py``): an observation's token
    predicts policy and value, an action's token the next latent and the reward. Inference only: no gradients, no
    target model. Positions are each row's own, however the batch is padded.

    Args:
        config: shapes, seed of the weights, and which cache.

    Attributes:
        cache: the one cache there is; switching to another is another configuration.
    """

    support: Tensor

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.geometry = geometry = config.geometry
        width = geometry.embed_dim
        self.tokenizer = Tokenizer(config.observation_shape, config.action_space_size, width)
        self.transformer = Transformer(geometry)
        self.latent_head = Head(width, width, nn.LayerNorm(width))
        self.reward_head = Head(width, 2 * config.support_size + 1)
        self.policy_head = Head(width, config.action_space_size)
        self.value_head = Head(width, 2 * config.support_size + 1)
        self._initialise(config.seed)
        self.requires_grad_(False).to(config.device, config.dtype)
        # Afterwards: it stays float32, in which all its numbers are exact.
        support = torch.arange(-config.support_size, config.support_size + 1.0, device=config.device)
        self.register_buffer("support", support, persistent=False)
        self.cache = config.make_cache()
        self._searches = 0
        # The batch at hand, row by row: whose it is, and where in the episode the next token stands.
        self._envs: list[int] = []
        self._next_positions = np.zeros(0, dtype=np.int64)
        self._reanalyzes = False
        self._is_assembled = False
        self._weights_changed()

    def _initialise(self, seed: int) -> None:
        """Weights from ``seed`` alone, whatever torch's own generators are at."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    # Tokens are of size 1 already; of a layer's inputs each output is a sum.
                    fan_in = 1 if "actions" in name or "positions" in name else math.prod(parameter.shape[1:])
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in))
                elif name.endswith("bias"):
                    parameter.zero_()

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As ``torch.nn.Module``'s; the caches are cleared, since nothing in them was computed with these weights."""
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        finally:
            self._weights_changed()  # torch copies what fits before it raises for what is missing

    def _weights_changed(self) -> None:
        self.clear_caches()
        self.cache.position_shift = self.transformer.position_shift()

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

    # Inference.

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
        new = self.tokenizer.encode(self._tensor(observations))
        parts = []
        # A first step is one token, any other two: they cannot share a batch.
        for group, width in ((np.flatnonzero(begins), 1), (np.flatnonzero(~begins), TOKENS_PER_STEP)):
            if len(group):
                self._begin([envs[row] for row in group], start[group] - (width - 1), reanalyzes)
                tokens = new[group]
                if width == 1:
                    self._retrieve(None, Scope.ROOT)
                else:
                    assert last_latents is not None
                    self._retrieve(last_latents[group], Scope.ROOT)
                    tokens = torch.cat([self._embedded(last_actions[group]), tokens], dim=1)
                sizes = self.trim_and_pad_kv_cache(is_init_infer=True)
                output = self._forward(tokens)[:, -1]
                self.update_cache_context(new[group], is_init_infer=True)
                parts.append((group, self._inference(new[group], None, output, sizes)))
        self.cache.clear_recur_cache()
        self._searches += 1
        if self.config.enable_cache_logging and self._searches % self.config.cache_log_interval == 0:
            _log.info("%d searches: %s", self._searches, cache_line(self.cache))
        return in_order(parts, rows)

    @torch.inference_mode()
    def forward_recurrent_inference(
        self,
        latents: np.ndarray | Tensor,
        actions: Sequence[int] | np.ndarray | Tensor,
        envs: Sequence[int] | None = None,
        simulation_index: int = 0,
        timesteps: int | Sequence[int] = 0,
        reanalyzes: bool = False,
    ) -> Inference:
        """Predictions for the states that actions lead to.

        Args:
            latents: ``[B, 1, E]``: of the states in which the actions are taken, as an inference returned them.
            actions: ``[B]``.
            envs: ``[B]``: None is environments 0, 1, ...
            simulation_index: of the search.
            timesteps: of those states, ``[B]`` or one for all: the root's and the depth below it.
            reanalyzes: as in ``forward_initial_inference``.

        Raises:
            ValueError: an argument is not one for each row, of another shape, or out of range.
        """
        latents = self._latents("latents", latents)
        rows = len(latents)
        actions, start = self._actions("actions", actions, [rows]), positions(timesteps, rows)
        self.retrieve_or_generate_kvcache(latents, rows, simulation_index, start, envs, reanalyzes)
        sizes = self.trim_and_pad_kv_cache(is_init_infer=False)
        acted = self._forward(self._embedded(actions))[:, -1]
        new = self.latent_head(acted).unsqueeze(1)
        if not self.geometry.keeps_past:  # no room behind the action: the new latent stands alone
            self._begin(self._envs, self._next_positions + 1, reanalyzes)
            self._retrieve(None, Scope.ROOT)
            self.trim_and_pad_kv_cache(is_init_infer=False)
        output = self._forward(new)[:, -1]
        self.update_cache_context(new, is_init_infer=False)
        return self._inference(new, acted, output, sizes)

    @torch.inference_mode()
    def forward_without_cache(
        self, latents: np.ndarray | Tensor, actions: Sequence[Sequence[int]] | np.ndarray, timesteps: int = 0
    ) -> Inference:
        """The same predictions from a raw window, in one pass and with no cache at all: the judge of the cached ones.

        Args:
            latents: ``[B, n, E]``, of ``n`` successive observations, the last of which is asked about.
            actions: ``[B, n - 1]``, between them.
            timesteps: of the first observation, for all rows.

        Raises:
            ValueError: the window is longer than the context, there is not one action between two latents, or an
                argument is of another shape or out of range.
        """
        states = self._tensor(numbers("latents", latents, (None, self.geometry.embed_dim)))
        rows, count = states.shape[:2]
        between = self._actions("actions", actions, [rows, count - 1])
        length = TOKENS_PER_STEP * count - 1
        if length > self.geometry.context_length:
            raise ValueError(f"a window of {length} tokens is longer than a context of {self.geometry.context_length}")
        tokens = states.new_empty(rows, length, states.shape[2])
        tokens[:, ::2] = states
        for place in range(count - 1):
            tokens[:, 2 * place + 1] = self._embedded(between[:, place])[:, 0]
        start = int(positions(timesteps, 1)[0])
        first = start if self.geometry.positions == "rotary" else 0
        places = torch.arange(first, first + length, device=states.device).expand(rows, length)
        outputs = self.transformer(tokens, places, self._empty(rows))
        acted = outputs[:, -2] if count > 1 else None
        return self._inference(states[:, -1:], acted, outputs[:, -1], [length - 1] * rows)

    # The three methods.

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

        Begins a batch. ``keys_values_wm_list`` and ``keys_values_wm_size_list`` tell what is in it.

        Args:
            latent_state: ``[B, 1, E]``.
            ready_env_num: rows, B.
            simulation_index: of the search; nothing depends on it.
            start_pos: where in their episodes the latents stand, ``[B]`` or one for all, in tokens.
            envs: ``[B]``: whose latents these are; None is environments 0, 1, ...
            reanalyzes: nothing is looked up, and nothing of this batch will be stored; ``envs`` are not looked at.

        Returns:
            The rows' sizes ``[B]``, in tokens.

        Raises:
            ValueError: an argument is not one for each row, or out of range.
        """
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
        if self.geometry.keeps_past and not self._reanalyzes:
            keys = self.cache.hash_states(latent_state)
            self.cache.store(self._envs, keys, Scope.ROOT if is_init_infer else Scope.NODE)

    def clear_caches(self) -> None:
        """Forget all contexts, and the batch."""
        self.cache.clear_all()
        self._is_assembled = False

    # Parts of them.

    def _latents(self, name: str, latents: np.ndarray | Tensor, rows: int | None = None) -> np.ndarray | Tensor:
        return numbers(name, latents, (1, self.geometry.embed_dim), rows)

    def _actions(self, name: str, actions: Any, shape: Sequence[int], lowest: int = 0) -> np.ndarray:
        return whole_numbers(name, actions, shape, lowest, self.config.action_space_size - 1)

    def _embedded(self, actions: np.ndarray) -> Tensor:
        """Tokens ``[B, 1, E]`` of actions ``[B]``."""
        return self.tokenizer.embed(torch.from_numpy(actions).to(self.support.device))

    def _environments(self, envs: Sequence[int] | None, rows: int, reanalyzes: bool) -> list[int]:
        """The environment of each row ``[B]``."""
        if reanalyzes:  # old observations are of no environment, and may be more than there are
            return environments([0] * rows, rows, 1)
        return environments(envs, rows, self.geometry.env_num)

    def _begin(self, envs: list[int], next_positions: np.ndarray, reanalyzes: bool) -> None:
        """A batch of environments ``[B]``, whose next tokens stand at these positions ``[B]`` in their episodes."""
        self._envs, self._next_positions, self._reanalyzes = envs, next_positions, reanalyzes

    def _retrieve(self, latents: np.ndarray | Tensor | None, scope: Scope) -> None:
        """Look up the contexts of latents ``[B, 1, E]`` and make those that are not there; None: all begin empty."""
        keys: Sequence[int | None] = [None] * len(self._envs)
        if latents is not None and self.geometry.keeps_past and not self._reanalyzes:
            keys = self.cache.hash_states(latents)
        found = self.cache.lookup(self._envs, keys, scope)
        self._is_assembled = False
        if latents is not None:
            self._generate(latents, found)

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
                positions = torch.tensor([[int(position)]], device=self.support.device)
                self.transformer(self._tensor(latents[row : row + 1]), positions, context)
                self.cache.supply(row, context)

    def _empty(self, rows: int) -> KeysValues:
        """``[rows, H, context_length, D]`` per layer, no tokens in it."""
        shape = self.geometry
        sizes = rows, shape.num_heads, shape.context_length, shape.embed_dim, shape.num_layers
        return KeysValues(*sizes, self.support.device, self.config.dtype)

    def _forward(self, tokens: Tensor) -> Tensor:
        """Outputs ``[B, n, E]`` of tokens ``[B, n, E]`` that are appended to the batch."""
        batch, sizes = self.cache.keys_values_wm, self.cache.keys_values_wm_size_list
        longest = max(sizes)
        starts = self._next_positions if self.geometry.positions == "rotary" else np.array(sizes)
        places = starts[:, None] + (batch.size - longest) + np.arange(tokens.shape[1])
        padding = None
        if self.config.mask_padding and min(sizes) < longest:
            padding = torch.zeros(len(sizes), batch.size, dtype=torch.bool)
            for row, size in enumerate(sizes):
                start = self.cache.row_start(row)
                padding[row, :start] = padding[row, start + size : longest] = True
            padding = padding.to(tokens.device)
        output: Tensor = self.transformer(tokens, torch.from_numpy(places).to(tokens.device), batch, padding)
        return output

    def _inference(self, latents: Tensor, acted: Tensor | None, output: Tensor, sizes: Sequence[int]) -> Inference:
        """What the heads say.

        Args:
            latents: ``[B, 1, E]``, of the states.
            acted: ``[B, E]``: outputs of the action tokens that led there; None for roots.
            output: ``[B, E]``: outputs of the states' own tokens.
            sizes: ``[B]``, of the contexts before them.
        """
        values, logits = self._expected(self.value_head(output)), self.policy_head(output)
        rewards = torch.zeros_like(values) if acted is None else self._expected(self.reward_head(acted))
        # One transfer for all of it, and float32 holds what any dtype does.
        columns = torch.cat([rewards[:, None], values[:, None], logits.float(), latents[:, 0].float()], 1).cpu().numpy()
        actions = logits.shape[1]
        return Inference(
            np.ascontiguousarray(columns[:, None, 2 + actions :]),
            columns[:, 0],
            columns[:, 2 : 2 + actions],
            columns[:, 1],
            list(sizes),
        )

    def _expected(self, logits: Tensor) -> Tensor:
        """Expectations ``[B]`` over the support, of logits ``[B, 2 x support_size + 1]``."""
        return (logits.float().softmax(dim=1) * self.support).sum(dim=1)

    def _tensor(self, values: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=self.config.dtype, device=self.support.device)


def cache_line(cache: CacheBackend) -> str:
    """What a cache has done so far, in one line: rates below the roots, and bytes.

    A legacy cache counts its stale hits among the hits, and cannot tell; only a shadow can.
    """
    stats, reserved = cache.hierarchy_stats, sum(cache.bytes_reserved.values())
    queries = max(1, stats.total_queries)
    stale = "unknown"
    hits = stats.hits
    if isinstance(cache, ShadowCache):
        of_primary = cache.report.stale_hits if isinstance(cache.primary, LegacyCache) else 0
        hits, stale = hits - of_primary, f"{100 * of_primary / queries:.2f} %"
    elif not isinstance(cache, LegacyCache):
        stale = "0 %"  # whatever is found under a key was stored under it
    return (
        f"{cache.name}: hits {100 * hits / queries:.2f} %, stale {stale}, "
        f"misses {100 * stats.misses / queries:.2f} % of {stats.total_queries} lookups; "
        f"{reserved / 1e6:.1f} MB reserved"
    )
