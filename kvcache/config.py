"""The configuration of a cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kvcache.eviction import EvictionStrategy
from kvcache.geometry import Geometry, is_whole

__all__ = ["AUTO_EVICTION", "CacheConfig", "eviction_name"]

AUTO_EVICTION = "auto"

SMALLEST_INIT_POOL = 256

_LARGEST_POOL = 1 << 60  # slots or bytes; more are in no machine

_POOL_SIZES = ("init_pool_size", "recur_pool_size", "init_pool_bytes", "recur_pool_bytes")


@dataclass(frozen=True)
class CacheConfig:
    """Everything a backend is built from.

    Attributes:
        geometry: shapes, number of environments and simulations.
        game_segment_length: the init pools' default size; None leaves it to ``num_simulations``.
        init_pool_size: slots of each environment's init pool; None leaves it to the backend.
        recur_pool_size: slots of the recurrent pool; None leaves it to the backend.
        init_pool_bytes: instead of ``init_pool_size``: as many entries as fit. Entries found in a byte-limited pool
            are copied into other pools; sharing would keep their pages alive after eviction.
        recur_pool_bytes: instead of ``recur_pool_size``: as many entries as fit.
        eviction_strategy: of the new backend's pools: a strategy, or "auto". That is "tree" for a recurrent pool that
            has no room for a whole search, and "fifo" for all others (docs/policies.md says why).
        storage: of the new backend's pools: a name from ``kvcache.storage.STORAGES``, or "auto". That is "paged", with
            a resident batch where contexts are long.
        resident_batch: whether the new backend's batch keeps its content from one inference to the next.
        exact: whether the new backend's batches have LightZero's bits also where windows have slid: positions are
            corrected slide by slide, and rows padded in front. Paged contexts that have slid share fewer pages then,
            and a batch is not resident.
        device: of the contents.
        dtype: of the contents.
        verify_keys: whether every key carries a fingerprint of its latent, so that two latents with one key are noticed
            and never take each other's entries (see ``kvcache.keys``). ``collisions`` of the backend counts them.
        checks_entries: whether every entry must have the geometry's shape. If not, a pool's first entry decides; with
            shared memory (slab, paged) the first entry of any pool does.
        thread_safe: whether all threads may call the cache, one at a time (see ``CacheBackend.exclusive``). If not,
            calls of a second thread raise ``ThreadError``.

    Raises:
        ValueError: a pool size is not a positive integer, is given twice, or is too small for one entry; or
            ``verify_keys`` is not True or False.
    """

    geometry: Geometry
    game_segment_length: int | None = None
    init_pool_size: int | None = None
    recur_pool_size: int | None = None
    init_pool_bytes: int | None = None
    recur_pool_bytes: int | None = None
    eviction_strategy: str = AUTO_EVICTION
    storage: str = "paged"
    resident_batch: bool = False
    exact: bool = False
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    checks_entries: bool = True
    verify_keys: bool = False
    thread_safe: bool = False

    def __post_init__(self) -> None:
        for name in ("game_segment_length", *_POOL_SIZES):
            size = getattr(self, name)
            if size is None:
                continue
            if not is_whole(size) or size < 1:
                raise ValueError(f"{name} must be a positive integer or None, got {size!r}")
            if size > _LARGEST_POOL:
                raise ValueError(f"{name} must be at most {_LARGEST_POOL:,}, got {size!r:.40}")
            object.__setattr__(self, name, int(size))  # NumPy's integers too
        for name in ("resident_batch", "exact", "checks_entries", "thread_safe", "verify_keys"):
            _check_switch(name, getattr(self, name))
        if not isinstance(self.dtype, torch.dtype):
            raise ValueError(f"dtype must be a torch.dtype, such as torch.float32, got {self.dtype!r}")
        if not isinstance(self.storage, str):
            raise ValueError(f"storage must be a name, such as {CacheConfig.storage!r}, got {self.storage!r}")
        try:
            torch.device(self.device)
        except (RuntimeError, TypeError):
            raise ValueError(f"torch knows no device {self.device!r}") from None
        for pool in ("init", "recur"):
            size, limit = getattr(self, f"{pool}_pool_size"), getattr(self, f"{pool}_pool_bytes")
            if size is not None and limit is not None:
                raise ValueError(f"{pool}_pool_size and {pool}_pool_bytes are both set: set one of them")
            if limit is not None and not self.checks_entries:
                raise ValueError(
                    f"{pool}_pool_bytes is {limit}, but the sizes of an entry are not known: set num_layers, "
                    f"num_heads, embed_dim and context_length too, or {pool}_pool_size instead"
                )
            if limit is not None and limit < self.entry_bytes:
                raise ValueError(f"{pool}_pool_bytes is {limit}: one entry takes {self.entry_bytes} bytes")

    @property
    def entry_bytes(self) -> int:
        """Bytes of one full entry."""
        return self.geometry.entry_bytes(self.dtype.itemsize)

    @property
    def init_entries(self) -> int:
        """Slots of each environment's init pool, with room for a full entry each."""
        if self.init_pool_bytes is not None:
            return self.init_pool_bytes // self.entry_bytes
        return self.init_pool_size or self.default_init_pool_size

    @property
    def recur_entries(self) -> int:
        """Slots of the recurrent pool, with room for a full entry each."""
        if self.recur_pool_bytes is not None:
            return self.recur_pool_bytes // self.entry_bytes
        return self.recur_pool_size or self.default_recur_pool_size

    @property
    def default_init_pool_size(self) -> int:
        """``game_segment_length`` where it is set, else max(256, 2 x num_simulations)."""
        return self.game_segment_length or max(SMALLEST_INIT_POOL, 2 * self.geometry.num_simulations)

    @property
    def default_recur_pool_size(self) -> int:
        """One slot for every node of a search, num_simulations x env_num."""
        return self.geometry.num_simulations * self.geometry.env_num

    def eviction_of(self, pool: str) -> str:
        """The strategy of a pool by its name: ``"recur"``, or any other."""
        if self.eviction_strategy != AUTO_EVICTION:
            return self.eviction_strategy
        is_small = pool == "recur" and self.recur_entries < self.default_recur_pool_size
        return "tree" if is_small else "fifo"

    @classmethod
    def of(cls, config: Any, env_num: int | None, **settings: Any) -> CacheConfig:
        """A manager's configuration.

        Args:
            config: a configuration, or what ``from_object`` reads.
            env_num: environments of one batch; optional with a configuration, which has it.
            settings: fields to be replaced, where they are not None.

        Raises:
            ValueError: ``env_num`` is missing or another one than the configuration's; a value is out of range.
        """
        if not isinstance(config, CacheConfig):
            if env_num is None:
                raise ValueError("KVCacheManager needs env_num, the number of environments of one batch")
            read = cls.from_object(config, env_num)
        else:
            read = config
            if env_num not in (None, read.geometry.env_num):
                raise ValueError(f"env_num is {env_num}, but the configuration is for {read.geometry.env_num}")
        given = {name: value for name, value in settings.items() if value is not None}
        if given.get("storage", read.storage) != read.storage:
            # The configuration's resident batch goes with its storage: another storage may have none.
            given["resident_batch"] = False
        if "eviction_strategy" in given:
            given["eviction_strategy"] = eviction_name(given["eviction_strategy"])
        return replace(read, **given)

    @classmethod
    def from_object(cls, config: Any, env_num: int) -> CacheConfig:
        """Read a world model's configuration: a dict or any object with attributes; a missing one takes its default.

        Attributes read: ``num_layers``, ``num_heads``, ``embed_dim``, ``context_length``, ``num_simulations``,
        ``rotary_emb``, ``game_segment_length``, ``init_pool_size``, ``recur_pool_size``, ``init_pool_bytes``,
        ``recur_pool_bytes``, ``eviction_strategy``, ``cache_storage``, ``cache_resident_batch``,
        ``cache_exact_layout``, ``cache_thread_safe``, ``verify_keys``, ``device`` and ``dtype``. Shapes default to
        UniZero's (LightZero 0.2.0, ``policy/unizero.py``). Where one is missing, entries may have any shape.

        Raises:
            ValueError: a value is out of range, named.
        """
        if isinstance(config, dict):  # an EasyDict too: its keys are its attributes
            config = SimpleNamespace(**{str(name): value for name, value in config.items()})
        is_rotary = _attribute(config, "rotary_emb", False)
        _check_switch("rotary_emb", is_rotary)
        shape = ("num_layers", "num_heads", "embed_dim", "context_length", "num_simulations")
        others = ("game_segment_length", *_POOL_SIZES, "eviction_strategy", "verify_keys", "device", "dtype")
        return cls(
            Geometry(
                env_num=env_num,
                positions="rotary" if is_rotary else "absolute",
                **{name: _attribute(config, name, getattr(Geometry, name)) for name in shape},
            ),
            storage=_attribute(config, "cache_storage", cls.storage),
            resident_batch=_attribute(config, "cache_resident_batch", cls.resident_batch),
            exact=_attribute(config, "cache_exact_layout", cls.exact),
            thread_safe=_attribute(config, "cache_thread_safe", cls.thread_safe),
            checks_entries=all(getattr(config, name, None) is not None for name in shape[:-1]),
            **{name: _attribute(config, name, getattr(cls, name)) for name in others},
        )


def eviction_name(strategy: EvictionStrategy | str) -> str:
    """ "auto", or a strategy's name. Raises ValueError, naming the choices, for any other."""
    if strategy == AUTO_EVICTION:
        return AUTO_EVICTION
    try:
        return EvictionStrategy.parse(strategy).value
    except ValueError as error:
        raise ValueError(f"{error}, {AUTO_EVICTION}") from None


def _attribute(config: Any, name: str, default: Any) -> Any:
    value = getattr(config, name, default)
    return default if value is None else value


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):  # "False" is true
        raise ValueError(f"{name} must be True or False, got {value!r}")
