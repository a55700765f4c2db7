"""The configuration of a world model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from kvcache.backend import CacheBackend
from kvcache.config import CacheConfig, eviction_name
from kvcache.geometry import GEOMETRIES, TOKENS_PER_STEP, Geometry, is_whole
from kvcache.layout import chosen_storage
from kvcache.registry import make_backend
from kvcache.shadow import ShadowCache

__all__ = ["DTYPES", "LARGEST_SEED", "WorldModelConfig"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

LARGEST_SEED = 2**63 - 1  # of torch's generators
_VECTOR, _IMAGE = 1, 3


@dataclass(frozen=True)
class WorldModelConfig:
    """Shapes, weights and cache of a world model.

    Attributes:
        geometry: of the transformer and of its caches; its ``positions`` decide how tokens know where they are.
        observation_shape: ``(features,)`` or ``(channels, height, width)``.
        action_space_size: discrete actions, A.
        support_size: values and rewards are expectations over the integers from ``-support_size`` to ``support_size``.
        seed: of the weights, at most ``LARGEST_SEED``.
        mask_padding: True: tokens do not attend to a batch's padding. False: they do, as in legacy, where each zero
            key takes a share of the attention.
        use_new_cache_manager: whether the new cache is used; if not, legacy.
        cache_storage: of the new cache; a name from ``kvcache.storage.STORAGES``, or "auto".
        cache_resident_batch: as in ``CacheConfig.resident_batch``.
        eviction_strategy: of the new cache.
        cache_validation_mode: whether the other cache gets the same calls, and each retrieval is compared. A
            difference raises ``kvcache.CacheMismatchError``.
        enable_cache_logging: whether a line is logged after every ``cache_log_interval`` searches, by the logger
            ``kvcache.world_model``: rates of the lookups below the roots, and bytes.
        cache_log_interval: searches from one line to the next.
        cache_thread_safe: as in ``CacheConfig.thread_safe``: an inference has the cache to itself.
        init_pool_size: as in ``CacheConfig``.
        recur_pool_size: as in ``CacheConfig``.
        verify_keys: as in ``CacheConfig``.
        chained_keys: whether a context's key is of its whole history (see ``kvcache.chain``), so that no context of the
            same latent with another history is found. ``Inference.keys`` has the keys, and recurrent inferences need
            them.
        compile: whether ``torch.compile`` compiles the passes of recurrent inferences. Results differ by rounding. The
            first inference raises ``CompileError`` where it cannot.
        cuda_graph: whether they are captured as CUDA graphs, one for each length of the padded contexts.
        device: where weights and caches live.
        dtype: of weights, computation and cached contexts: float32, float16 or bfloat16. Weights are drawn in float32
            and rounded. Expectations, and all that an inference returns, are float32.

    Raises:
        ValueError: a size is out of range, a storage or a strategy is unknown (with legacy as well), or the device or
            dtype cannot be used, or not with ``cuda_graph``.
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
    cache_thread_safe: bool = False
    init_pool_size: int | None = None
    recur_pool_size: int | None = None
    verify_keys: bool = False
    chained_keys: bool = False
    compile: bool = False
    cuda_graph: bool = False
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not isinstance(self.geometry, Geometry):
            raise ValueError(f"geometry must be a Geometry, such as GEOMETRIES['pong'], got {self.geometry!r}")
        self._check_sizes()
        for name in ("chained_keys", "compile", "cuda_graph"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        _check_device(self.device)
        if self.cuda_graph:
            self._check_graph()
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {self.dtype!r}")
        # Both are checked for legacy too: the same settings must work with the other cache.
        eviction_name(self.cache_config.eviction_strategy)
        chosen_storage(self.cache_config)

    def _check_graph(self) -> None:
        if torch.device(self.device).type != "cuda":
            raise ValueError(f"cuda_graph=True needs a CUDA device, got device {str(self.device)!r}")
        if not self.use_new_cache_manager:
            raise ValueError("cuda_graph=True needs use_new_cache_manager=True: legacy makes a new batch every time")

    def _check_sizes(self) -> None:
        shape = self.observation_shape
        if (
            not isinstance(shape, (tuple, list))
            or len(shape) not in (_VECTOR, _IMAGE)
            or not all(is_whole(each) and each > 0 for each in shape)
        ):
            raise ValueError(f"observation_shape must be (features,) or (channels, height, width), got {shape!r}")
        for name in ("action_space_size", "support_size", "cache_log_interval"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
            object.__setattr__(self, name, int(value))  # NumPy's integers too
        if not is_whole(self.seed) or not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed must be an integer from 0 to {LARGEST_SEED}, got {self.seed!r}")
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "observation_shape", tuple(map(int, shape)))
        if self.geometry.context_length < TOKENS_PER_STEP:
            raise ValueError(
                f"geometry {self.geometry.name!r}: a context of {self.geometry.context_length} token has no room for "
                f"one observation and one action: context_length must be at least {TOKENS_PER_STEP}"
            )
        if self.geometry.positions == "rotary" and self.geometry.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of numbers: head_dim {self.geometry.head_dim} is odd")

    @property
    def cache_name(self) -> str:
        """The registry's name of the cache in use."""
        return "new" if self.use_new_cache_manager else "legacy"

    @property
    def cache_config(self) -> CacheConfig:
        """The configuration of both caches. Raises ValueError for a size out of range."""
        return CacheConfig(
            self.geometry,
            init_pool_size=self.init_pool_size,
            recur_pool_size=self.recur_pool_size,
            eviction_strategy=self.eviction_strategy,
            storage=self.cache_storage,
            resident_batch=self.cache_resident_batch,
            verify_keys=self.verify_keys,
            thread_safe=self.cache_thread_safe,
            device=self.device,
            dtype=self.dtype,
        )

    def make_cache(self) -> CacheBackend:
        """The cache for the model; nothing else chooses one."""
        cache = make_backend(self.cache_name, self.cache_config)
        if self.cache_validation_mode:
            other = "legacy" if self.use_new_cache_manager else "new"
            return ShadowCache(cache, make_backend(other, self.cache_config))
        return cache


def _check_device(device: torch.device | str) -> None:
    try:
        named = torch.device(device)
        if named.type != "cuda":
            torch.empty(0, device=named)
    except (RuntimeError, TypeError, AssertionError):
        raise ValueError(f"torch cannot use device {device!r} here") from None
    # Not by an allocation: that would start CUDA in a process that may be about to fork.
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {str(named)!r} does not exist: torch finds {torch.cuda.device_count()} CUDA devices")
