"""Names of backends as settings of LightZero's ``world_model_cfg``."""

from __future__ import annotations

from typing import Any

from kvcache import BACKENDS

__all__ = ["LEGACY", "TRAINED", "cache_settings"]

LEGACY = "legacy"  # LightZero's own cache, unmodified
_EXACT, _RESIDENT = "-exact", "-resident"

# LightZero's own, and every new backend with and without its exact layout.
TRAINED = (
    LEGACY,
    *(
        f"{name}{exact}"
        for name in BACKENDS
        if name.startswith("new") and not name.endswith((_EXACT, "reference"))
        for exact in ("", _EXACT)
    ),
)


def cache_settings(backend: str, validates: bool = False) -> dict[str, Any]:
    """The settings of a name from ``TRAINED``; ``validates`` compares a new cache with a legacy one beside it."""
    if backend == LEGACY:
        return {}
    exact = backend.endswith(_EXACT)
    _, _, storage = backend.removesuffix(_EXACT).partition(":")
    return {
        "use_new_cache_manager": True,
        "cache_storage": storage.removesuffix(_RESIDENT) or "paged",
        "cache_resident_batch": storage.endswith(_RESIDENT),
        "cache_exact_layout": exact,
        "cache_validation_mode": validates,
    }
