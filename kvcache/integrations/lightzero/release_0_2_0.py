"""LightZero 0.2.0 (PyPI): ``lzero/model/unizero_world_models/world_model.py``.

A row of its batches is a cache of its own, whichever environment is in it. So environment numbers are row numbers here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.backend import Scope
from kvcache.integrations.lightzero.adapter import Replacement
from kvcache.integrations.lightzero.attachment import Attachment, ClearsInit, ClearsRecur
from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError

__all__ = ["Release020"]

_FIRST_STEP = -1  # LightZero's action of an environment whose episode begins


class Release020:
    """The adapter to LightZero 0.2.0 (see ``Adapter``)."""

    name = "LightZero 0.2.0"
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
        "_add_position_embeddings": "a92b4dd38aae60f8",
    }

    def attach(self, model: Any, attachment: Attachment) -> None:
        model.past_kv_cache_init_infer_envs = [ClearsInit(attachment, env) for env in range(model.env_num)]
        model.past_kv_cache_recurrent_infer = ClearsRecur(attachment)

    def detach(self, model: Any) -> None:
        model.past_kv_cache_init_infer_envs = [defaultdict(dict) for _ in range(model.env_num)]
        model.past_kv_cache_recurrent_infer = defaultdict(dict)

    def pool_sizes(self, model: Any) -> Mapping[str, int]:
        return {"init": model.shared_pool_size_init, "recur": model.shared_pool_size}

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
        if rows > model.env_num:
            raise UnsupportedLightZeroError(
                f"a search has {rows} environments, and the world model was made for env_num={model.env_num}: set "
                "world_model_cfg.env_num to the larger of collector_env_num and evaluator_env_num"
            )
        attachment.begin_search()
        backend = attachment.backend
        _take_position_shift(attachment, model)
        with torch.no_grad():
            if _is_first_step(model, batch_action):
                backend.lookup(range(rows), [None] * rows, Scope.ROOT)
                inputs = [{"obs_embeddings": latents}]
            else:
                found = attachment.retrieve(
                    range(rows),
                    backend.hash_states(last_latents[:rows]),
                    Scope.ROOT,
                    lambda row: _context(model, last_latents[row], start_pos[row].item()),
                )
                model.root_total_query_cnt += rows
                model.root_hit_cnt += found
                if attachment.settings.cache.exact:  # 0.2.0 stores a root's zeros in front as if they were tokens
                    attachment.pad_in_front()
                start_pos = start_pos[:rows]
                actions = torch.from_numpy(np.array(batch_action[:rows])).to(last_latents.device)
                actions = actions.unsqueeze(1 if model.continuous_action_space else -1)
                inputs = [{"act_tokens": actions}, {"obs_embeddings": latents}]
            model.keys_values_wm_size_list_current = list(backend.assemble())
            model.keys_values_wm = backend.keys_values_wm
            for each in inputs:
                outputs = model.forward(each, past_keys_values=model.keys_values_wm, start_pos=start_pos)
            backend.store(range(rows), backend.hash_states(latents), Scope.ROOT)
        return outputs

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
        backend = attachment.backend
        envs: Sequence[int] = range(ready_env_num)
        keys: Sequence[int | None]
        if model.reanalyze_phase:
            # Columns of ``start_pos`` are the timesteps of a sample; one more, of position 0, stands for its end.
            positions = np.pad(start_pos, ((0, 0), (0, 1))).reshape(-1)
            envs, keys = [0] * ready_env_num, [None] * ready_env_num
        else:
            positions = np.asarray(start_pos).reshape(-1)
            keys = backend.hash_states(latent_state)
        found = attachment.retrieve(
            envs,
            keys,
            Scope.NODE,
            lambda row: _context(model, torch.from_numpy(latent_state[row]).to(model.device), int(positions[row])),
        )
        model.total_query_count += ready_env_num
        model.hit_count += found
        return list(backend.keys_values_wm_size_list)

    @staticmethod
    def _assemble(attachment: Attachment, model: Any, original: Any, is_init_infer: bool = True) -> list[int]:
        """``trim_and_pad_kv_cache``."""
        sizes = list(attachment.backend.assemble())
        model.keys_values_wm = attachment.backend.keys_values_wm
        return sizes

    @staticmethod
    def _store(
        attachment: Attachment, model: Any, original: Any, latent_state: Tensor, is_init_infer: bool = True, **_: Any
    ) -> None:
        """``update_cache_context``. What reanalysis stores is never looked up: the next root clears it."""
        if not model.reanalyze_phase:
            keys = attachment.backend.hash_states(latent_state)
            attachment.backend.store(range(len(keys)), keys, Scope.ROOT if is_init_infer else Scope.NODE)

    @staticmethod
    def _clear(attachment: Attachment, model: Any, original: Any) -> None:
        """``clear_caches``: LightZero calls it when weights have changed."""
        original()
        if attachment.is_built:
            attachment.backend.clear_all()

    root: Mapping[str, Replacement] = {"wm_forward_for_initial_infererence": _root}
    node: Mapping[str, Replacement] = {
        "retrieve_or_generate_kvcache": _retrieve,
        "trim_and_pad_kv_cache": _assemble,
        "update_cache_context": _store,
    }
    clears: Mapping[str, Replacement] = {"clear_caches": _clear}


def _is_first_step(model: Any, batch_action: Any) -> bool:
    """Whether all environments begin an episode, as LightZero tells it from their last actions."""
    if model.continuous_action_space:
        return not isinstance(batch_action[0], np.ndarray)
    return bool(max(batch_action) == _FIRST_STEP)


def _context(model: Any, latent: Tensor, position: int) -> Any:
    """The context of one latent ``[K, E]`` alone, LightZero's ``KeysValues`` of one row."""
    context = model.transformer.generate_empty_keys_values(n=1, max_tokens=model.context_length)
    model.forward({"obs_embeddings": latent.unsqueeze(0)}, past_keys_values=context, start_pos=position)
    return context


def _take_position_shift(attachment: Attachment, model: Any) -> None:
    """Take LightZero's own differences of absolute positions, where it has computed new ones.

    They are of the weights at the time that LightZero last computed them; training goes on with them.
    """
    layers = getattr(model, "pos_emb_diff_k", None)
    if layers is None or layers is attachment.position_shift_of:
        return
    places = (2, model.context_length - 1)
    pairs = zip(layers, model.pos_emb_diff_v, strict=True)
    shift = torch.stack([torch.cat([keys[places], values[places]]) for keys, values in pairs])
    attachment.backend.position_shift = shift.to(attachment.settings.cache.dtype)
    attachment.position_shift_of = layers
