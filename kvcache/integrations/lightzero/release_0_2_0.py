"""LightZero 0.2.0 (PyPI): ``lzero/model/unizero_world_models/world_model.py``.

A row of its batches is a cache of its own, whichever environment is in it. So environment numbers are row numbers here.
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
from kvcache.integrations.lightzero.attachment import Attachment
from kvcache.integrations.lightzero.settings import Settings
from kvcache.integrations.lightzero.stand_ins import ClearsInit, ClearsRecur
from kvcache.legacy import LEGACY_0_2_0

__all__ = ["Release020"]


class Release020:
    """The adapter to LightZero 0.2.0 (see ``Adapter``)."""

    name = "LightZero 0.2.0"
    legacy = LEGACY_0_2_0
    reads: Mapping[str, str] = {
        "wm_forward_for_initial_infererence": "d1dd04321e78e170",
        "retrieve_or_generate_kvcache": "b106abe2c2474a94",
        "trim_and_pad_kv_cache": "a60f97aa388c9d9b",
        "update_cache_context": "0fdeb2824cb30125",
        "clear_caches": "24db9f7c4bbf6122",
        "forward_initial_inference": "c98b24edf74a9540",
        "forward_recurrent_inference": "36e36f4e801f366d",
        "reset_for_initial_inference": "86e6ef88dd5f9a10",
        "precompute_pos_emb_diff_kv": "b6858eb2d8328679",
        "_initialize_cache_structures": "da1ff5486b5d1940",
        "_initialize_transformer_keys_values": "5547e31aa35ea699",
        "_add_position_embeddings": "a92b4dd38aae60f8",
    }

    def attach(self, model: Any, attachment: Attachment) -> None:
        model.past_kv_cache_init_infer_envs = [ClearsInit(attachment, env) for env in range(model.env_num)]
        model.past_kv_cache_recurrent_infer = ClearsRecur(attachment)

    def detach(self, model: Any) -> None:
        model._initialize_cache_structures()
        model._initialize_transformer_keys_values()

    def pool_sizes(self, model: Any) -> Mapping[str, int]:
        return {"init": model.shared_pool_size_init, "recur": model.shared_pool_size}

    def check(self, model: Any, settings: Settings) -> None:
        """All of it is served."""

    @staticmethod
    def _root(
        attachment: Attachment,
        model: Any,
        original: Any,
        last_latents: Tensor,
        batch_action: Any = None,
        latents: Tensor | None = None,
        start_pos: Any = 0,
    ) -> Any:
        """``wm_forward_for_initial_infererence``; without current latents these are training targets, of no cache."""
        if latents is None:
            return original(last_latents, batch_action, None, start_pos)
        rows = len(latents)
        methods.check_rows(model, rows)

        def forward(tokens: dict[str, Tensor], positions: Any) -> Any:
            return model.forward(tokens, past_keys_values=model.keys_values_wm, start_pos=positions)

        batch = methods.RootBatch(range(rows), last_latents, batch_action, latents, start_pos)
        # 0.2.0 stores a root's zeros in front as if they were tokens.
        return methods.infer_root(attachment, model, batch, forward, pads_in_front=attachment.settings.cache.exact)

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
        """``retrieve_or_generate_kvcache``: reanalysis looks nothing up, and has more rows than environments."""
        backend, chain = attachment.backend, attachment.chain
        envs: Sequence[int] = range(ready_env_num)
        keys: Sequence[int | None]
        latent_keys: Sequence[int] = []
        if model.reanalyze_phase:
            # Columns of ``start_pos`` are the timesteps of a sample; one more, of position 0, stands for its end.
            positions = np.pad(start_pos, ((0, 0), (0, 1))).reshape(-1)
            envs, keys = [0] * ready_env_num, [None] * ready_env_num
        else:
            positions = np.asarray(start_pos).reshape(-1)
            latent_keys = keys = backend.hash_states(latent_state)
            if chain is not None:
                keys = chain.look_up_nodes(envs, latent_keys, positions.tolist(), simulation_index)

        def generate(row: int) -> Any:
            latent = torch.from_numpy(latent_state[row]).to(model.device)
            return methods.new_context(model, latent, int(positions[row]))

        found = methods.retrieve_nodes(attachment, model, envs, keys, generate)
        if chain is not None and latent_keys:
            chain.found(keys, found, latent_keys, positions.tolist())
        return list(backend.keys_values_wm_size_list)

    @staticmethod
    def _store(
        attachment: Attachment, model: Any, original: Any, latent_state: Tensor, is_init_infer: bool = True, **_: Any
    ) -> None:
        """``update_cache_context``. What reanalysis stores is never looked up: the next root clears it."""
        if not model.reanalyze_phase:
            keys = attachment.backend.hash_states(latent_state)
            if attachment.chain is not None:
                keys = attachment.chain.store_nodes(keys)
            scope = Scope.ROOT if is_init_infer else Scope.NODE
            methods.store(attachment, model, range(len(keys)), keys, scope)

    root: Mapping[str, Replacement] = {"wm_forward_for_initial_infererence": _root}
    node: Mapping[str, Replacement] = {
        "retrieve_or_generate_kvcache": _retrieve,
        "trim_and_pad_kv_cache": methods.assemble,
        "update_cache_context": _store,
    }
    clears: Mapping[str, Replacement] = {"clear_caches": methods.clear}
