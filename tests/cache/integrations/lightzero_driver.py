"""A LightZero 0.2.0 world model under a search that picks nodes by a seed: LightZero's tree picks by the clock."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Sequence

import numpy as np
import torch

OBSERVATION, ACTIONS = 5, 3


def make_model(seed: int = 0, continuous: bool = False, **config):
    """A ``UniZeroModel`` of random weights, all of which have an effect; ``config`` goes into ``world_model_cfg``."""
    from lzero.model.sampled_unizero_model import SampledUniZeroModel
    from lzero.model.unizero_model import UniZeroModel
    from lzero.policy.sampled_unizero import SampledUniZeroPolicy
    from lzero.policy.unizero import UniZeroPolicy

    policy, model_class = (SampledUniZeroPolicy, SampledUniZeroModel) if continuous else (UniZeroPolicy, UniZeroModel)
    wm = copy.deepcopy(policy.default_config().model.world_model_cfg)
    wm.update(
        device="cpu", obs_type="vector", num_layers=2, num_heads=2, embed_dim=32, env_num=3, action_space_size=ACTIONS,
        context_length=8, continuous_action_space=continuous, num_simulations=6, norm_type="BN",
        sigma_type="conditioned", bound_type=None,
    )  # fmt: skip
    wm.update(config)
    torch.manual_seed(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        model = model_class(
            observation_shape=OBSERVATION, action_space_size=ACTIONS, model_type="mlp", norm_type="BN",
            continuous_action_space=continuous, world_model_cfg=wm,
        )  # fmt: skip
    model.eval()
    with torch.no_grad():  # LightZero starts the last layers at zero: all latents would be one, and have one key
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    if not wm.rotary_emb:
        model.world_model.precompute_pos_emb_diff_kv()
    return model


class Driver:
    """Searches of a model, one after the other, with observations, actions and picks from a seed.

    Args:
        model: from ``make_model``.
        simulations: of each search.
        seed: of all choices.
    """

    def __init__(self, model, simulations: int = 6, seed: int = 0) -> None:
        self.model = model
        self.simulations = simulations
        self.continuous = model.world_model.continuous_action_space
        self.random = np.random.default_rng(seed)
        self.last = None
        self.step = 0
        self.latents: list[np.ndarray] = []  # of all nodes, for their share of distinct keys

    def restart(self) -> None:
        self.last, self.step = None, 0

    def search(self, rows: int | Sequence[int] = 3) -> list[np.ndarray]:
        """One search of ``rows`` environments: all outputs of its inferences."""
        rows = list(range(rows)) if isinstance(rows, int) else list(rows)
        current = torch.from_numpy(self.random.standard_normal((3, OBSERVATION)).astype(np.float32))[rows]
        start = np.full(len(rows), self.step)
        if self.last is None:
            last, actions = torch.zeros(len(rows), OBSERVATION), [-1] * len(rows)
        else:
            last, actions = self.last[: len(rows)], self._actions(len(rows))
        outputs = [self.model.initial_inference(last, actions, current, start)]
        nodes = [outputs[0].latent_state.numpy()]
        for simulation in range(self.simulations):
            picks = self.random.integers(0, len(nodes), len(rows))
            latents = np.stack([nodes[pick][row] for row, pick in enumerate(picks)])
            outputs.append(self.recurrent(latents, simulation, picks, start))
            nodes.append(outputs[-1].latent_state.numpy())
        self.latents += nodes
        self.last, self.step = current, self.step + 1
        return [np.asarray(value) for each in outputs for value in (each.value, each.policy_logits, each.latent_state)]

    def recurrent(self, latents, simulation, picks, start):
        actions = self._actions(len(latents))
        token = torch.from_numpy(np.array(actions)).to(torch.float32 if self.continuous else torch.int64)
        return self.model.recurrent_inference([(latents, token)], simulation, [int(pick) for pick in picks], start)

    def _actions(self, rows: int):
        if self.continuous:
            return [self.random.standard_normal(ACTIONS).astype(np.float32) for _ in range(rows)]
        return self.random.integers(0, ACTIONS, rows).tolist()

    @property
    def distinct(self) -> float:
        """Share of the nodes whose latent is their own."""
        rows = [row.tobytes() for node in self.latents for row in node]
        return len(set(rows)) / len(rows)


def largest_difference(ours, theirs) -> float:
    assert len(ours) == len(theirs)
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
