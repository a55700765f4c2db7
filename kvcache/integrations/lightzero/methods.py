"""The parts of replaced methods that all adapters have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvcache.backend import Scope
from kvcache.eviction import SearchInfo
from kvcache.integrations.lightzero.adapter import Replacement
from kvcache.integrations.lightzero.attachment import Attachment
from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError

__all__ = [
    "FIRST_STEP",
    "WHOLE",
    "RootBatch",
    "assemble",
    "check_rows",
    "clear",
    "infer_root",
    "new_context",
    "retrieve_nodes",
    "store",
]

FIRST_STEP = -1  # LightZero's action of an environment whose episode begins


@dataclass(frozen=True)
class RootBatch:
    """An initial inference.

    Attributes:
        envs: the environment of each row.
        last_latents: of the steps before, ``[B, K, E]``.
        actions: taken there.
        latents: of the current steps, ``[B, K, E]``.
        start_pos: steps of each row's episode so far.
    """

    envs: Sequence[int]
    last_latents: Tensor
    actions: Any
    latents: Tensor
    start_pos: Any

    @property
    def positions(self) -> list[int]:
        """Of each row, where a context of its latent alone is made."""
        rows = len(self.envs)
        return [int(each) for each in np.broadcast_to(np.asarray(self.start_pos).ravel()[:rows], rows)]


def infer_root(
    attachment: Attachment,
    model: Any,
    batch: RootBatch,
    forward: Callable[[dict[str, Tensor], Any], Any],
    pads_in_front: bool = False,
) -> Any:
    """Look up, forward and store the rows of an initial inference.

    Args:
        attachment: the model's cache.
        model: the world model.
        batch: what it is for.
        forward: of one kind of tokens at these positions, on ``model.keys_values_wm``.
        pads_in_front: whether zeros in front of a row count as its tokens.

    Returns:
        The model's outputs for the current latents.
    """
    attachment.begin_search()
    backend, chain, rows, start_pos = attachment.backend, attachment.chain, len(batch.envs), batch.start_pos
    take_position_shift(attachment, model)
    with torch.no_grad():
        inputs, acted = [{"obs_embeddings": batch.latents}], batch.actions[:rows]
        if _is_first_step(model, batch.actions):
            backend.lookup(batch.envs, [None] * rows, Scope.ROOT)
            if chain is not None:
                chain.begin([None] * rows)
            acted = [FIRST_STEP] * rows  # LightZero's list may be another episode's
        else:
            _retrieve_root(attachment, model, batch)
            start_pos = start_pos[:rows]
            inputs.insert(0, {"act_tokens": _action_tokens(model, batch)})
            if pads_in_front:
                attachment.pad_in_front()
        model.keys_values_wm_size_list_current = list(backend.assemble())
        model.keys_values_wm = backend.keys_values_wm
        for each in inputs:
            outputs = forward(each, start_pos)
        keys = backend.hash_states(batch.latents)
        if chain is not None:
            keys = chain.store_roots(batch.envs, keys, acted, batch.positions)
        store(attachment, model, batch.envs, keys, Scope.ROOT)
    return outputs


def store(attachment: Attachment, model: Any, envs: Sequence[int], keys: Sequence[int], scope: Scope) -> None:
    """Store the rows of a batch, with what LightZero's search knows of them where the cache uses it."""
    backend, depths = attachment.backend, attachment.depths
    if not backend.wants_info:
        backend.store(envs, keys, scope)
        return
    if scope is Scope.ROOT:
        depths = [0] * len(keys)
    actions = None if model.continuous_action_space else getattr(model.config, "action_space_size", None)
    known = [int(depth) for depth in depths] if len(depths) == len(keys) else None
    backend.store(envs, keys, scope, None, SearchInfo(known, actions=actions))


def _retrieve_root(attachment: Attachment, model: Any, batch: RootBatch) -> None:
    latents, rows = batch.last_latents, len(batch.envs)
    latent_keys, chain = attachment.backend.hash_states(latents[:rows]), attachment.chain
    keys = latent_keys if chain is None else chain.look_up_roots(batch.envs, latent_keys, batch.positions)
    found = attachment.retrieve(
        batch.envs, keys, Scope.ROOT, lambda row: new_context(model, latents[row], int(batch.start_pos[row]))
    )
    if chain is not None:
        chain.found(keys, found, latent_keys, batch.positions)
    model.root_total_query_cnt += rows
    model.root_hit_cnt += len(found)


def _action_tokens(model: Any, batch: RootBatch) -> Tensor:
    actions = torch.from_numpy(np.array(batch.actions[: len(batch.envs)])).to(batch.last_latents.device)
    return actions.unsqueeze(1 if model.continuous_action_space else -1)


def _is_first_step(model: Any, actions: Any) -> bool:
    """Whether all environments begin an episode, as LightZero tells it from their last actions."""
    if model.continuous_action_space:
        return not isinstance(actions[0], np.ndarray)
    return bool(max(actions) == FIRST_STEP)


def retrieve_nodes(
    attachment: Attachment,
    model: Any,
    envs: Sequence[int],
    keys: Sequence[int | None],
    generate: Callable[[int], Any],
) -> list[int]:
    """Look up the contexts of a recurrent inference, and count as LightZero does. Returns the rows that found one."""
    found = attachment.retrieve(envs, keys, Scope.NODE, generate)
    model.total_query_count += len(envs)
    model.hit_count += len(found)
    return found


def assemble(attachment: Attachment, model: Any, original: Any, is_init_infer: bool = True) -> list[int]:
    """``trim_and_pad_kv_cache``."""
    sizes = list(attachment.backend.assemble())
    model.keys_values_wm = attachment.backend.keys_values_wm
    return sizes


def clear(attachment: Attachment, model: Any, original: Any) -> None:
    """``clear_caches``: LightZero calls it when weights have changed."""
    original()
    if attachment.is_built:
        attachment.backend.clear_all()


def _exclusively(attachment: Attachment, model: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
    """A whole inference: it has the cache to itself."""
    with attachment.backend.exclusive():
        return original(*args, **kwargs)


_SEARCH_DEPTH = 2  # its place among the arguments


def _recurrent(attachment: Attachment, model: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
    """``forward_recurrent_inference``, whose ``search_depth`` has the depths of the new nodes."""
    attachment.depths = kwargs.get("search_depth", args[_SEARCH_DEPTH] if len(args) > _SEARCH_DEPTH else ())
    return _exclusively(attachment, model, original, *args, **kwargs)


# The inferences that the other methods are parts of.
WHOLE: Mapping[str, Replacement] = {
    "forward_initial_inference": _exclusively,
    "forward_recurrent_inference": _recurrent,
}


def check_rows(model: Any, rows: int) -> None:
    """Raise UnsupportedLightZeroError where a search has more rows than the model has environments."""
    if rows > model.env_num:
        raise UnsupportedLightZeroError(
            f"a search has {rows} environments, and the world model was made for env_num={model.env_num}: set "
            "world_model_cfg.env_num to the larger of collector_env_num and evaluator_env_num"
        )


def new_context(model: Any, latent: Tensor, position: int) -> Any:
    """The context of one latent ``[K, E]`` alone, LightZero's ``KeysValues`` of one row."""
    context = model.transformer.generate_empty_keys_values(n=1, max_tokens=model.context_length)
    model.forward({"obs_embeddings": latent.unsqueeze(0)}, past_keys_values=context, start_pos=position)
    return context


def take_position_shift(attachment: Attachment, model: Any) -> None:
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
