"""The manager with a planted change in it, for tests of what the gate's trials plant."""

from pathlib import Path
from types import ModuleType

from kvcache import manager


def planted_manager(source):
    """The class with ``source`` appended to its module; everybody else's stays as it is."""
    module = ModuleType("planted_manager")
    exec(compile(Path(manager.__file__).read_text() + source, "planted_manager.py", "exec"), vars(module))
    return module.KVCacheManager
