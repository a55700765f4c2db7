"""Observations and actions as tokens."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ImageEncoder", "Tokenizer", "VectorEncoder"]


class VectorEncoder(nn.Module):
    """A vector observation as one latent: two layers, normalised.

    Args:
        features: of an observation.
        embed_dim: of a latent, E.
    """

    def __init__(self, features: int, embed_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, embed_dim), nn.GELU(), nn.Linear(embed_dim, embed_dim), nn.LayerNorm(embed_dim)
        )

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, features]`` to ``[B, E]``."""
        latents: Tensor = self.layers(observations)
        return latents


class ImageEncoder(nn.Module):
    """An image observation as one latent: strided convolutions down to a few pixels, then one layer, normalised.

    Args:
        shape: channels, height and width of an observation.
        embed_dim: of a latent, E.
    """

    CHANNELS = (32, 64, 64)

    def __init__(self, shape: tuple[int, ...], embed_dim: int) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for out in self.CHANNELS:
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.GELU()]
            channels, height, width = out, -(-height // 2), -(-width // 2)
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * height * width, embed_dim), nn.LayerNorm(embed_dim)
        )

    def forward(self, observations: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, E]``."""
        latents: Tensor = self.layers(observations)
        return latents


class Tokenizer(nn.Module):
    """One token for an observation, one for an action.

    Args:
        observation_shape: ``(features,)`` or ``(channels, height, width)``.
        action_space_size: discrete actions.
        embed_dim: of a token, E.
    """

    def __init__(self, observation_shape: tuple[int, ...], action_space_size: int, embed_dim: int) -> None:
        super().__init__()
        if len(observation_shape) == 1:
            self.encoder: nn.Module = VectorEncoder(observation_shape[0], embed_dim)
        else:
            self.encoder = ImageEncoder(observation_shape, embed_dim)
        self.actions = nn.Embedding(action_space_size, embed_dim)

    def encode(self, observations: Tensor) -> Tensor:
        """Latents ``[B, 1, E]`` of observations ``[B, *observation_shape]``."""
        latents: Tensor = self.encoder(observations)
        return latents.unsqueeze(1)

    def embed(self, actions: Tensor) -> Tensor:
        """Tokens ``[B, 1, E]`` of actions ``[B]``, int64."""
        tokens: Tensor = self.actions(actions)
        return tokens.unsqueeze(1)
