"""LightZero main of 2026-08-21 (commit 9f717c80): ``lzero/model/unizero_world_models/world_model.py``.

A row of its batches belongs to an environment, named by ``ready_env_id``. Each row has a size of its own at the root
too, and attention masks the zeros in front of it. Replay roots of reanalysis bring contexts of their own, and their
searches use the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.backend import Scope
from kvcache.integrations.lightzero import methods
from kvcache.integrations.lightzero.adapter import Replacement
from kvcache.integrations.lightzero.attachment import Attachment, own_keys_values
from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError
from kvcache.integrations.lightzero.settings import Settings
from kvcache.integrations.lightzero.stand_ins import StandInManager
from kvcache.keys_values import KeysValues
from kvcache.legacy import LEGACY_MAIN

__all__ = ["Main202608"]

# Settings of its ``world_model_cfg`` with which a context is computed anew instead of slid.
_RECOMPUTES = ("exact_kv_window_reset", "rebuild_kv_window_from_tokens")


class Main202608:
    """The adapter to LightZero main of 2026-08-21 (see ``Adapter``)."""

    name = "LightZero main of 2026-08-21 (9f717c80)"
    legacy = LEGACY_MAIN
    reads: Mapping[str, str] = {
        "wm_forward_for_initial_infererence": "f2c0d2789f02ec1f",
        "retrieve_or_generate_kvcache": "40b34f2ab8fd40c4",
        "trim_and_pad_kv_cache": "1950f4f1f5c827ea",
        "update_cache_context": "77685816c3318d7b",
        "clear_caches": "d78839dde691d483",
        "forward_initial_inference": "47cfcf64a36caa17",
        "forward_recurrent_inference": "4857c5d82850a178",
        "reset_for_initial_inference": "d02c38bc21dd495a",
        "seed_reanalysis_root_caches": "c9b64e01a6ece3ee",
        "precompute_pos_emb_diff_kv": "b6858eb2d8328679",
        "_initialize_cache_structures": "45ed795cdfdbadeb",
        "_initialize_transformer_keys_values": "5547e31aa35ea699",
        "_add_position_embeddings": "28777497f1ae8d03",
        "_variable_context_lengths": "c0ef1bf29f0586e8",
        "_reanalysis_root_start_position": "203cfbca7e9a74c0",
    }

    def attach(self, model: Any, attachment: Attachment) -> None:
        model.kv_cache_manager = StandInManager(attachment, model.env_num)

    def detach(self, model: Any) -> None:
        model._initialize_cache_structures()
        model._initialize_transformer_keys_values()

    def pool_sizes(self, model: Any) -> Mapping[str, int]:
        return {"init": model.shared_pool_size_init, "recur": model.shared_pool_size_recur}

    def check(self, model: Any, settings: Settings) -> None:
        for name in _RECOMPUTES:
            if getattr(model, name):
                raise UnsupportedLightZeroError(
                    f"{name}=True computes a full window anew, and the new cache slides it: leave {name} out of "
                    "world_model_cfg, or run without kvcache's install(): use_new_cache_manager then means LightZero's "
                    "own manager"
                )
        if model.transformer.use_register_token:
            raise UnsupportedLightZeroError(
                f"task_embed_option={model.task_embed_option!r} puts register tokens into the keys and values, which "
                "the new cache does not remove: set another task_embed_option, or leave use_new_cache_manager out"
            )
        if settings.cache.resident_batch and not settings.cache.exact:
            raise UnsupportedLightZeroError(
                f"{self.name} masks zeros in front of a row's tokens, and a resident batch has them behind: set "
                'cache_exact_layout=True too, or cache_storage="paged" without cache_resident_batch'
            )

    @staticmethod
    def _root(
        attachment: Attachment,
        model: Any,
        original: Any,
        last_latents: Tensor,
        batch_action: Any = None,
        latents: Tensor | None = None,
        start_pos: Any = 0,
        ready_env_id: Sequence[int] | None = None,
    ) -> Any:
        """``wm_forward_for_initial_infererence``.

        LightZero's own method makes training targets, and splits a batch in which some episodes begin: it calls this
        again for each part.
        """
        if latents is None or _is_mixed(model, batch_action):
            return original(last_latents, batch_action, latents, start_pos, ready_env_id)
        methods.check_rows(model, len(latents))
        model.current_infer_env_ids = envs = _environments(ready_env_id, len(latents))

        def forward(tokens: dict[str, Tensor], positions: Any) -> Any:
            sizes = model.keys_values_wm_size_list_current
            outputs = model.forward(
                tokens,
                past_keys_values=model.keys_values_wm,
                valid_context_lengths=model._variable_context_lengths(sizes),
                start_pos=positions,
            )
            model.keys_values_wm_size_list_current = [size + 1 for size in sizes]
            return outputs

        batch = methods.RootBatch(envs, last_latents, batch_action, latents, start_pos)
        return methods.infer_root(attachment, model, batch, forward)

    @staticmethod
    def _retrieve(
        attachment: Attachment,
        model: Any,
        original: Any,
        latent_state: np.ndarray,
        ready_env_num: int,
        simulation_index: int = 0,
        start_pos: Any = 0,
    ) -> list[int]:
        """``retrieve_or_generate_kvcache``: a reanalysis of more rows than environments looks nothing up."""
        backend = attachment.backend
        methods.take_position_shift(attachment, model)

        def generate(row: int) -> Any:
            if model.reanalyze_phase:
                position = model._reanalysis_root_start_position(start_pos, row, ready_env_num)
            else:
                position = int(start_pos[row])
            return methods.new_context(model, torch.from_numpy(latent_state[row]).to(model.device), position)

        if _is_wide(model, ready_env_num):
            methods.retrieve_nodes(attachment, model, [0] * ready_env_num, [None] * ready_env_num, generate)
        else:
            methods.check_rows(model, ready_env_num)
            envs, latent_keys = _searched(model, ready_env_num), backend.hash_states(latent_state)
            keys, chain = latent_keys, attachment.chain
            if chain is not None:
                positions = [int(each) for each in start_pos[:ready_env_num]]
                keys = chain.look_up_nodes(envs, latent_keys, positions, simulation_index)
            found = methods.retrieve_nodes(attachment, model, envs, keys, generate)
            if chain is not None:
                chain.found(keys, found, latent_keys, positions)
            for row in found:
                _count_seeded(model, (envs[row], int(latent_keys[row])))
        return list(backend.keys_values_wm_size_list)

    @staticmethod
    def _store(
        attachment: Attachment,
        model: Any,
        original: Any,
        latent_state: Tensor,
        is_init_infer: bool = True,
        env_ids: Sequence[int] | None = None,
        **_: Any,
    ) -> None:
        """``update_cache_context``: of a recurrent inference, or of replay roots that bring their contexts."""
        backend, rows = attachment.backend, len(latent_state)
        keys = backend.hash_states(latent_state)
        if is_init_infer:
            envs = _environments(env_ids, rows)
            _take_contexts(attachment, envs, model.keys_values_wm)
            if attachment.chain is not None:
                keys = attachment.chain.store_replayed(envs, keys)
            methods.store(attachment, model, envs, keys, Scope.ROOT)
        elif not _is_wide(model, rows):
            if attachment.chain is not None:
                keys = attachment.chain.store_nodes(keys)
            methods.store(attachment, model, _searched(model, rows), keys, Scope.NODE)

    root: Mapping[str, Replacement] = {"wm_forward_for_initial_infererence": _root}
    node: Mapping[str, Replacement] = {
        "retrieve_or_generate_kvcache": _retrieve,
        "trim_and_pad_kv_cache": methods.assemble,
        "update_cache_context": _store,
    }
    clears: Mapping[str, Replacement] = {}  # its ``clear_caches`` clears the stand-in


def _is_mixed(model: Any, actions: Any) -> bool:
    """Whether some environments of a root begin an episode and others go on: LightZero looks at discrete actions."""
    begins = [] if model.continuous_action_space else [int(action) == methods.FIRST_STEP for action in actions]
    return any(begins) and not all(begins)


def _environments(named: Sequence[int] | None, rows: int) -> list[int]:
    """The environment of each row; without names they are the first ones."""
    envs = list(range(rows)) if named is None else [int(env) for env in named]
    if len(envs) != rows:
        raise ValueError(f"ready_env_id names {len(envs)} environments, and the batch has {rows} rows")
    return envs


def _searched(model: Any, rows: int) -> list[int]:
    """The environments of a recurrent inference: those of its root, and row numbers where there are more rows."""
    named = model.current_infer_env_ids or []
    return [int(env) for env in named[:rows]] + list(range(len(named), rows))


def _is_wide(model: Any, rows: int) -> bool:
    return bool(model.reanalyze_phase and rows > model.env_num)


def _count_seeded(model: Any, root: tuple[int, int | None]) -> None:
    """Count a replay root that was found for the first time, as LightZero does."""
    if model.reanalyze_phase and root in model._reanalysis_seeded_root_keys:
        model._reanalysis_seeded_root_keys.remove(root)
        model.reanalysis_root_seed_hit_count += 1


def _take_contexts(attachment: Attachment, envs: Sequence[int], theirs: Any) -> None:
    """Make LightZero's own batch, whose rows have one length, the backend's."""
    backend, batch = attachment.backend, own_keys_values(theirs)
    backend.lookup(envs, [None] * len(envs), Scope.ROOT)
    for row in range(len(envs)):
        layers = [(each._k_cache._cache[row : row + 1], each._v_cache._cache[row : row + 1]) for each in batch]
        backend.supply(row, KeysValues.from_layers(layers, batch.size))
    backend.assemble()
