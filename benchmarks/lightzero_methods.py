"""LightZero 0.2.0's own cache behind this project's interface: its world model's methods, run as they are.

``retrieve_or_generate_kvcache`` hashes and looks up, ``trim_and_pad_kv_cache`` assembles, and ``update_cache_context``
hashes and stores. So hashing costs nothing of its own here: "keys" are the latents. A root's lookup is inside
LightZero's forward; it is done here as there.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvbench.record.lightzero_config import require_lightzero
from kvcache import EMPTY, CacheBackend, CacheConfig, CacheStats, Geometry, KeysValues, Scope

__all__ = ["LightZeroMethods", "make_world_model"]

OBSERVATION, ACTIONS = 4, 2


def make_world_model(geometry: Geometry) -> Any:
    """LightZero's ``WorldModel`` of that geometry, with its first weights."""
    require_lightzero()
    policy = importlib.import_module("lzero.policy.unizero").UniZeroPolicy
    config = copy.deepcopy(policy.default_config().model.world_model_cfg)
    config.update(
        device="cpu", obs_type="vector", num_layers=geometry.num_layers, num_heads=geometry.num_heads,
        embed_dim=geometry.embed_dim, env_num=geometry.env_num, num_simulations=geometry.num_simulations,
        context_length=geometry.context_length, max_tokens=geometry.context_length,
        max_blocks=geometry.context_length // 2, rotary_emb=geometry.positions == "rotary", action_space_size=ACTIONS,
        continuous_action_space=False, norm_type="BN",
    )  # fmt: skip
    model_class = importlib.import_module("lzero.model.unizero_model").UniZeroModel
    logging.disable(logging.WARNING)  # for good: LightZero sets the root logger to DEBUG, and evictions are logged
    with contextlib.redirect_stdout(io.StringIO()):
        model = model_class(
            observation_shape=OBSERVATION, action_space_size=ACTIONS, model_type="mlp", norm_type="BN",
            continuous_action_space=False, world_model_cfg=config,
        )  # fmt: skip
    return model.eval().world_model


class _Batch:
    """LightZero's batch cache, as what appends to one and checks one sees ours."""

    def __init__(self, keys_values: Any) -> None:
        self._theirs = keys_values

    def __iter__(self) -> Iterator[Any]:
        return iter(self._theirs._keys_values)

    def __getitem__(self, layer: int) -> Any:
        return self._theirs[layer]

    @property
    def size(self) -> int:
        return int(self._theirs.size)

    def layer_tensors(self) -> list[Tensor]:
        return [cache._cache for layer in self for cache in (layer._k_cache, layer._v_cache)]

    @property
    def block(self) -> Tensor:
        """A copy, ``[B, L, 2, H, T, D]``."""
        tensors = self.layer_tensors()
        return torch.stack(tensors, dim=1).unflatten(1, (len(tensors) // 2, 2))


class _Nothing:
    """A pool of which nothing is known."""

    pool_size = bytes_reserved = 0
    stats = CacheStats()


class LightZeroMethods(CacheBackend):
    """The caches of a ``WorldModel``. Its rows are environments 0 to n - 1; others are put in their place.

    Args:
        config: its geometry and its init pools' size are served: LightZero's have 2 slots where that is None.
    """

    name = "lightzero-0.2.0"
    stats_enabled = False
    recur_pool = wm_pool = _Nothing()
    hierarchy_stats = CacheStats()
    batch_bytes = 0

    def __init__(self, config: CacheConfig) -> None:
        self.config = config
        self.model = make_world_model(config.geometry)
        envs = range(config.geometry.env_num)
        self.init_pools = [_Nothing() for _ in envs]
        model = self.model
        self._caches = model.past_kv_cache_init_infer_envs, model.shared_pool_init_infer
        self._next_slots = model.shared_pool_index_init_envs
        self._envs = list(envs)
        self._everyone = list(envs)

    @property
    def position_shift(self) -> Tensor | None:
        raise AttributeError("LightZero keeps it")

    @position_shift.setter
    def position_shift(self, shift: Tensor | None) -> None:
        if shift is not None:
            span = (2, self.config.geometry.context_length - 1)
            self.model.pos_emb_diff_k = [{span: layer[0][None]} for layer in shift]
            self.model.pos_emb_diff_v = [{span: layer[1][None]} for layer in shift]

    @property
    def keys_values_wm(self) -> _Batch:
        return _Batch(self.model.keys_values_wm)

    @property
    def keys_values_wm_size_list(self) -> list[int]:
        return self._sizes

    def hash_states(self, latents: Tensor | np.ndarray) -> Any:
        return latents

    def _take(self, envs: Sequence[int]) -> None:
        """Let the model's rows be these environments."""
        if list(envs) != self._envs:
            self._put_back()
            self._envs, model = list(envs), self.model
            model.past_kv_cache_init_infer_envs, model.shared_pool_init_infer = (
                [of_all[env] for env in envs] for of_all in self._caches
            )
            model.shared_pool_index_init_envs = [self._next_slots[env] for env in envs]

    def _put_back(self) -> None:
        for env, slot in zip(self._envs, self.model.shared_pool_index_init_envs, strict=True):
            self._next_slots[env] = slot

    def lookup(self, envs: Sequence[int], keys: Sequence[Any], scope: Scope) -> list[int]:
        self._take(envs)
        model = self.model
        model.keys_values_wm_list, model.keys_values_wm_size_list = [], []
        if scope is Scope.NODE:
            self._sizes = model.retrieve_or_generate_kvcache(keys, len(envs), 0, np.zeros(len(envs)))
        elif keys[0] is None:
            model.keys_values_wm = model.transformer.generate_empty_keys_values(
                n=len(envs), max_tokens=model.context_length
            )
            self._sizes = [EMPTY] * len(envs)
        else:
            self._sizes = [self._root(row, latent) for row, latent in enumerate(keys)]
        return list(self._sizes)

    def _root(self, row: int, latent: Tensor) -> int:
        """As in ``wm_forward_for_initial_infererence``."""
        model = self.model
        key = importlib.import_module(type(model).__module__).hash_state(latent.view(-1).cpu().numpy())
        slot = model.past_kv_cache_init_infer_envs[row][key]
        found = model.shared_pool_init_infer[row][slot]
        model.keys_values_wm_list.append(model.custom_copy_kv_cache_to_shared_wm(found))
        model.keys_values_wm_size_list.append(found.size)
        return int(found.size)

    def supply(self, row: int, keys_values: KeysValues) -> None:
        raise AssertionError("a filled search misses nothing")

    def assemble(self) -> list[int]:
        if any(self._sizes):
            self._sizes = self.model.trim_and_pad_kv_cache()
        return self._sizes

    def store(self, envs: Sequence[int], keys: Any, scope: Scope, priorities: Sequence[float] | None = None) -> None:
        model = self.model
        appended = model.keys_values_wm.size - max(self._sizes)
        model.keys_values_wm_size_list_current = [size + appended for size in self._sizes]
        model.update_cache_context(keys, is_init_infer=scope is Scope.ROOT)

    def clear_recur_cache(self) -> None:
        self.model.past_kv_cache_recurrent_infer.clear()

    def clear_init_caches(self, envs: Sequence[int] | None = None) -> None:
        for env in self._everyone if envs is None else envs:
            self._caches[0][env].clear()
