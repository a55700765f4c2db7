"""The new cache inside LightZero's UniZero, with no file of LightZero edited.

Call ``install()``. Then a world model whose ``world_model_cfg`` has ``use_new_cache_manager=True`` uses the new cache,
also one that was made before; all others stay as they are.

LightZero 0.2.0 is served, and main as of 2026-08-21 (commit 9f717c80). Main has a cache manager of its own under the
same setting. After ``install()`` the setting means this cache, and after ``uninstall()`` main's own again. UniZero,
sampled UniZero and PPO are served. ``WorldModelMT`` is refused by name when the model is made, and so are main's
``exact_kv_window_reset``, ``rebuild_kv_window_from_tokens`` and register tokens.
"""

from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError
from kvcache.integrations.lightzero.installation import backend_of, install, installed, uninstall
from kvcache.integrations.lightzero.settings import SETTINGS

__all__ = ["SETTINGS", "UnsupportedLightZeroError", "backend_of", "install", "installed", "uninstall"]
