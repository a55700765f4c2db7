"""The new cache inside LightZero's UniZero, with no file of LightZero edited.

Call ``install()`` before the policy is made. Then a world model whose ``world_model_cfg`` has
``use_new_cache_manager=True`` uses the new cache; all others stay as they are.
"""

from kvcache.integrations.lightzero.guard import UnsupportedLightZeroError
from kvcache.integrations.lightzero.installation import backend_of, install, installed, uninstall
from kvcache.integrations.lightzero.settings import SETTINGS

__all__ = ["SETTINGS", "UnsupportedLightZeroError", "backend_of", "install", "installed", "uninstall"]
