"""An inference of the world model: the request, the predictions, and predictions of parts of a batch joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvcache.backend import Scope

__all__ = ["Inference", "InferenceRequest", "in_order"]


@dataclass(frozen=True)
class InferenceRequest:
    """The subject of one inference.

    Attributes:
        scope: ROOT of initial inferences, NODE of recurrent ones.
        envs: of each row, ``[B]``; all 0 when old observations are analysed again.
        timesteps: of each row's state in its episode, ``[B]``: for NODE of the state in which the action is taken.
        simulation: number within the search; None for roots. Of several rows of one environment the first has it, and
            the next ones have the next numbers.
    """

    scope: Scope
    envs: list[int]
    timesteps: list[int]
    simulation: int | None


@dataclass(frozen=True)
class Inference:
    """The model's predictions for a batch of states.

    Attributes:
        latents: ``[B, 1, E]``, float32 (as are the others), on the host: a search keeps its nodes' latents there.
        rewards: ``[B]``, of the step that led there; 0 for roots.
        policy_logits: ``[B, A]``.
        values: ``[B]``.
        sizes: context tokens of each row that the prediction was made from, without its own tokens.
        keys: with ``WorldModelConfig.chained_keys``, of each row's context ``[B]``, for recurrent inferences from it;
            None without, and where nothing was stored.
    """

    latents: np.ndarray
    rewards: np.ndarray
    policy_logits: np.ndarray
    values: np.ndarray
    sizes: list[int]
    keys: list[int] | None = None


def in_order(parts: Sequence[tuple[np.ndarray, Inference]], rows: int) -> Inference:
    """Inferences of groups of rows as one of all of them, in order.

    Args:
        parts: numbers of a group's rows ``[b]``, and what was inferred for them; each row is in one group.
        rows: of all groups, B.
    """
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([group for group, _ in parts]))
    assert len(order) == rows
    joined = {
        name: np.concatenate([getattr(part, name) for _, part in parts])[order]
        for name in ("latents", "rewards", "policy_logits", "values")
    }
    sizes = [size for _, part in parts for size in part.sizes]
    keys = [key for _, part in parts for key in part.keys or ()]
    return Inference(
        **joined, sizes=[sizes[place] for place in order], keys=[keys[place] for place in order] if keys else None
    )
