"""What stands where LightZero keeps its own caches, for those who clear them directly: policies and inferences."""

from __future__ import annotations

from typing import Any

from kvcache.integrations.lightzero.attachment import Attachment

__all__ = ["ClearsInit", "ClearsRecur", "StandInManager"]


class ClearsInit:
    """Stands where LightZero keeps an environment's keys."""

    def __init__(self, attachment: Attachment, env: int) -> None:
        self._attachment, self._env = attachment, env

    def clear(self) -> None:
        if self._attachment.is_built:
            self._attachment.backend.clear_init_caches([self._env])


class ClearsRecur:
    """Stands where LightZero keeps the recurrent keys."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def clear(self) -> None:
        if self._attachment.is_built:
            self._attachment.backend.clear_recur_cache()


class StandInManager:
    """Stands where LightZero main keeps its own ``KVCacheManager``.

    Args:
        attachment: of the model.
        env_num: environments of the model.

    Attributes:
        init_pools: of each environment, with ``clear``.
        recur_pool: with ``clear``.
    """

    def __init__(self, attachment: Attachment, env_num: int) -> None:
        self._attachment = attachment
        self.init_pools = [ClearsInit(attachment, env) for env in range(env_num)]
        self.recur_pool = ClearsRecur(attachment)

    def clear_init_caches(self) -> None:
        for pool in self.init_pools:
            pool.clear()

    def clear_recur_cache(self) -> None:
        self.recur_pool.clear()

    def clear_all(self) -> None:
        if self._attachment.is_built:
            self._attachment.backend.clear_all()

    def get_stats_summary(self) -> dict[str, Any]:
        """The backend's counters. There are none before the first inference."""
        return self._attachment.backend.get_stats_summary() if self._attachment.is_built else {"stats_enabled": False}

    def reset_stats(self) -> None:
        if self._attachment.is_built:
            self._attachment.backend.reset_stats()
