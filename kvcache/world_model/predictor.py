"""The world model's networks, and what they predict from tokens; nothing here uses a cache of contexts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kvcache.geometry import TOKENS_PER_STEP
from kvcache.keys_values import KeysValues
from kvcache.staging import make_staging
from kvcache.world_model.attention import Attend, append_and_attend
from kvcache.world_model.config import WorldModelConfig
from kvcache.world_model.direct import Call, DirectModule, direct, prepare
from kvcache.world_model.inference import Inference
from kvcache.world_model.inputs import numbers, positions, whole_numbers
from kvcache.world_model.tokenizer import Tokenizer
from kvcache.world_model.transformer import Transformer

__all__ = ["Predictor"]


class _Calls(NamedTuple):
    """The parts of a predictor that a simulation calls besides the transformer."""

    actions: Call
    latent: Call
    reward: Call
    policy: Call
    value: Call


_PLACES_END = 3  # columns of what is sent for a simulation: the action and two positions


class Head(DirectModule, nn.Sequential):
    """A perceptron on one token's output: ``[B, E]`` to ``[B, width]``."""

    def __init__(self, embed_dim: int, width: int, *behind: nn.Module) -> None:
        super().__init__(nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, width), *behind)
        self.prepare()

    def bind(self) -> list[Call]:
        return [direct(layer) for layer in self]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._calls:
            x = layer(x)
        return x


class Predictor(DirectModule):
    """Tokenizer, transformer and heads, with weights from the configuration's seed; no gradients.

    Args:
        config: shapes, and seed of the weights.
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
        size = config.support_size
        support = torch.arange(-size, size + 1, device=config.device, dtype=torch.float32)
        self.register_buffer("support", support, persistent=False)
        self._staging = make_staging(support.device)

    def bind(self) -> _Calls:
        """As ``DirectModule``'s."""
        heads = map(direct, (self.latent_head, self.reward_head, self.policy_head, self.value_head))
        return _Calls(direct(self.tokenizer.actions), *heads)

    def _initialise(self, seed: int) -> None:
        """Draw the weights from ``seed`` alone; torch's own generators and default type have no effect."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim > 1:
                    # Tokens are of size 1 already; of a layer's inputs each output is a sum.
                    fan_in = 1 if "actions" in name or "positions" in name else math.prod(parameter.shape[1:])
                    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                    parameter.copy_(drawn / math.sqrt(fan_in))
                elif name.endswith("bias"):
                    parameter.zero_()

    @torch.inference_mode()
    def forward_without_cache(
        self, latents: np.ndarray | Tensor, actions: Sequence[Sequence[int]] | np.ndarray, timesteps: int = 0
    ) -> Inference:
        """The same predictions from a raw window, in one pass and without a cache: the reference for cached ones.

        Args:
            latents: ``[B, n, E]``, of ``n`` successive observations, the last of which is asked about.
            actions: ``[B, n - 1]``, between them.
            timesteps: of the first observation, for all rows.

        Raises:
            ValueError: the window is longer than the context, there is not one action between two latents, or an
                argument is of another shape or out of range.
        """
        prepare(self)
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
        return self._inference(self._columns(states[:, -1:], acted, outputs[:, -1]), [length - 1] * rows)

    def _latents(self, name: str, latents: np.ndarray | Tensor, rows: int | None = None) -> np.ndarray | Tensor:
        return numbers(name, latents, (1, self.geometry.embed_dim), rows)

    def _actions(self, name: str, actions: Any, shape: Sequence[int], lowest: int = 0) -> np.ndarray:
        return whole_numbers(name, actions, shape, lowest, self.config.action_space_size - 1)

    def _embedded(self, actions: np.ndarray) -> Tensor:
        """Tokens ``[B, 1, E]`` of actions ``[B]``."""
        return self.tokenizer.embed(self._staging.send(torch.from_numpy(actions)))

    def _empty(self, rows: int) -> KeysValues:
        """``[rows, H, context_length, D]`` per layer, no tokens in it."""
        shape = self.geometry
        sizes = rows, shape.num_heads, shape.context_length, shape.embed_dim, shape.num_layers
        return KeysValues(*sizes, self.support.device, self.config.dtype)

    def simulate(self, sent: Tensor, context: Any, attend: Attend = append_and_attend) -> Tensor:
        """A simulation's two passes: the action's token, and that of the latent which it leads to.

        A function of tensors and of the context's size alone, so that it can be compiled or captured: no value is read,
        and nothing comes from the host.

        Args:
            sent: ``[B, 3]`` or ``[B, 5]``, int64: the action; positions of the two tokens; and where padding is masked,
                the first position of the row's tokens in the batch, and the one behind the last.
            context: of all rows, padded to one size; two tokens longer afterwards.
            attend: to a context of this kind.

        Returns:
            Predictions as ``_columns`` has them.
        """
        longest, calls, through = context.size, self._calls, self.transformer.placed
        embedded = calls.actions(sent[:, :1])
        places = self.transformer.places(sent[:, 1:_PLACES_END], embedded.dtype)
        first, second = zip(*(each.chunk(TOKENS_PER_STEP, dim=-2) for each in places), strict=True)
        acted = through(embedded, first, context, self._padding(sent, longest, longest), attend)[:, 0]
        new = calls.latent(acted).unsqueeze(1)
        output = through(new, second, context, self._padding(sent, longest, longest + 1), attend)[:, 0]
        return self._columns(new, acted, output)

    def _padding(self, sent: Tensor, longest: int, size: int) -> Tensor | None:
        """Which positions of a batch of ``size`` tokens are padding ``[B, size]``; None where that is not masked.

        Args:
            sent: see ``simulate``.
            longest: tokens of the padded contexts; behind them are new tokens.
            size: of the batch.
        """
        if sent.shape[1] <= _PLACES_END:
            return None
        place, start, end = torch.arange(size, device=sent.device), sent[:, -2:-1], sent[:, -1:]
        return (place < start) | ((place >= end) & (place < longest))

    def _columns(self, latents: Tensor, acted: Tensor | None, output: Tensor) -> Tensor:
        """Rewards, values, policy logits and latents side by side, ``[B, 2 + A + E]``: for one transfer.

        float32 holds the numbers of every dtype.

        Args:
            latents: ``[B, 1, E]``, of the states.
            acted: ``[B, E]``: outputs of the action tokens that led there; None for roots.
            output: ``[B, E]``: outputs of the states' own tokens.
        """
        calls = self._calls
        values, logits = calls.value(output), calls.policy(output)
        if acted is None:
            expected = self._expected(values)
            rewards = torch.zeros_like(expected)
        else:
            rewards, expected = self._expected(torch.cat([calls.reward(acted), values])).chunk(2)
        return torch.cat([rewards, expected, logits.float(), latents[:, 0].float()], 1)

    def _inference(self, columns: Tensor, sizes: Sequence[int]) -> Inference:
        """Predictions on the host: the step's only transfer to it.

        Args:
            columns: see ``_columns``.
            sizes: ``[B]``, of the contexts before the states' own tokens.
        """
        found, actions = columns.cpu().numpy(), self.config.action_space_size
        return Inference(
            np.ascontiguousarray(found[:, None, 2 + actions :]),
            found[:, 0],
            found[:, 2 : 2 + actions],
            found[:, 1],
            list(sizes),
        )

    def _expected(self, logits: Tensor) -> Tensor:
        """Expectations ``[B, 1]`` over the support, of logits ``[B, 2 x support_size + 1]``."""
        return (logits.float().softmax(dim=1) * self.support).sum(dim=1, keepdim=True)

    def _tensor(self, values: Tensor | np.ndarray) -> Tensor:
        """Numbers in the model's dtype, on its device."""
        if isinstance(values, Tensor):
            return values.to(self.support.device, self.config.dtype)
        return self._staging.send(torch.as_tensor(values, dtype=self.config.dtype))
