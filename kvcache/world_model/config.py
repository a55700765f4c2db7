"""What a world model is built from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from kvcache.backend import CacheBackend, CacheConfig
from kvcache.geometry import GEOMETRIES, Geometry
from kvcache.registry import make_backend
from kvcache.shadow import ShadowCache

__all__ = ["WorldModelConfig"]

_VECTOR, _IMAGE = 1, 3


@dataclass(frozen=True)
class WorldModelConfig:
    """Shapes, weights and cache of a world model.

    Attributes:
        geometry: of the transformer and of its caches; its ``positions`` decide how tokens know where they are.
        observation_shape: ``(features,)`` or ``(channels, height, width)``.
        action_space_size: discrete actions, A.
        support_size: values and rewards are expectations over the integers from ``-support_size`` to ``support_size``.
        seed: of the weights.
        mask_padding: whether tokens attend to a batch's padding: legacy does, each zero key taking a share of the
            attention (False); or does not (True).
        use_new_cache_manager: whether the new cache is used; if not, legacy.
        cache_storage: of the new cache; a name from ``kvcache.storage.STORAGES``, or "auto".
        cache_resident_batch: as in ``CacheConfig.resident_batch``.
        eviction_strategy: of the new cache.
        cache_validation_mode: whether the cache that is not used is run beside the other and compared with it at every
            retrieval; a difference raises ``kvcache.shadow.CacheMismatchError``.
        enable_cache_logging: whether every ``cache_log_interval`` searches a line is logged, by the logger
            ``kvcache.world_model``: rates of what was looked up below the roots, and bytes.
        cache_log_interval: searches from one line to the next.
        init_pool_size: as in ``CacheConfig``.
        recur_pool_size: as in ``CacheConfig``.
        device: where weights and caches live.

    Raises:
        ValueError: a size is out of range, named.
    """

    geometry: Geometry = field(default_factory=lambda: GEOMETRIES["pong"])
    observation_shape: tuple[int, ...] = (4,)
    action_space_size: int = 6
    support_size: int = 10
    seed: int = 0
    mask_padding: bool = False
    use_new_cache_manager: bool = False
    cache_storage: str = CacheConfig.storage
    cache_resident_batch: bool = False
    eviction_strategy: str = CacheConfig.eviction_strategy
    cache_validation_mode: bool = False
    enable_cache_logging: bool = False
    cache_log_interval: int = 100
    init_pool_size: int | None = None
    recur_pool_size: int | None = None
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if len(self.observation_shape) not in (_VECTOR, _IMAGE) or min(self.observation_shape) < 1:
            raise ValueError(
                f"observation_shape must be (features,) or (channels, height, width), got {self.observation_shape}"
            )
        for name in ("action_space_size", "support_size", "cache_log_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.geometry.positions == "rotary" and self.geometry.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of numbers: head_dim {self.geometry.head_dim} is odd")

    def make_cache(self) -> CacheBackend:
        """The one cache that the model will use, chosen here and nowhere else."""
        config = CacheConfig(
            self.geometry,
            init_pool_size=self.init_pool_size,
            recur_pool_size=self.recur_pool_size,
            eviction_strategy=self.eviction_strategy,
            storage=self.cache_storage,
            resident_batch=self.cache_resident_batch,
            device=self.device,
        )
        names = ("new", "legacy") if self.use_new_cache_manager else ("legacy", "new")
        if self.cache_validation_mode:
            return ShadowCache(*(make_backend(name, config) for name in names))
        return make_backend(names[0], config)
