"""This checkout's suite around another commit's library: what asv and the gate need to measure old commits.

Both install an old commit's ``kvcache`` and run the current checkout's benchmarks against it. ``kvbench``, which drives
and times a cache, must come from the checkout too, or a change of the suite would look like one of the cache.

For commits up to 75dd4e3 (2026-11-21), which had one package: they keep public names elsewhere than in ``kvcache``, and
the oldest lack some. Later commits need nothing of ``OLD_HOMES``.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "ROOT", "put_suite_in_place", "storages"]

ROOT = Path(__file__).resolve().parents[2]
NOT_WATCHED = ("new:reference",)  # it shares what it stores: it is there for comparison


def _metrics() -> Any:
    """This checkout's ``kvbench.metrics``, by its path: when asv imports the benchmarks, no package is in place yet."""
    spec = importlib.util.spec_from_file_location("_metrics_of_the_suite", ROOT / "kvbench" / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


METRICS = _metrics()


def storages(listed: list[str]) -> list[str]:
    """Backends: those that are listed, and behind them one for each further storage of this checkout.

    Read from its text, since asv imports the benchmarks without torch.
    """
    tree = ast.parse((ROOT / "kvcache" / "storage" / "__init__.py").read_text())
    table = next(
        node.value for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "STORAGES"
    )  # fmt: skip
    assert isinstance(table, ast.Dict)
    names = [f"new:{ast.literal_eval(key)}" for key in table.keys if key is not None]
    return [*listed, *(name for name in names if name not in (*listed, *NOT_WATCHED))]


# Where libraries up to 75dd4e3 keep what the suite imports from ``kvcache`` itself.
OLD_HOMES = {
    "BACKENDS": "kvcache.registry",
    "CacheBackend": "kvcache.backend",
    "CacheConfig": "kvcache.backend",
    "EMPTY": "kvcache.backend",
    "GEOMETRIES": "kvcache.geometry",
    "Geometry": "kvcache.geometry",
    "KeysValues": "kvcache.keys_values",
    "LegacyCache": "kvcache.legacy",
    "MISS": "kvcache.backend",
    "RecurrentMissError": "kvcache.legacy",
    "Scope": "kvcache.backend",
    "TOKENS_PER_STEP": "kvcache.geometry",
    "__version__": "kvcache._version",
    "hash_state": "kvcache.hashing",
    "make_backend": "kvcache.registry",
}
# What the suite drives and times with; each imports what it needs of the library.
_NEEDED = (
    "kvbench.replay.passes", "kvbench.replay.operations", "kvbench.replay.forward", "kvbench.replay.lockstep",
    "kvbench.replay.endurance", "kvbench.replay.many_searches", "kvbench.record.fills",
)  # fmt: skip


def put_suite_in_place() -> str | None:
    """Make ``kvbench`` this checkout's, whichever ``kvcache`` is installed.

    Returns:
        None, or why it cannot be: the installed library lacks something that the suite needs.

    Raises:
        Exception: whatever the installed library raises when it is imported. One that is broken is not one that is old.
    """
    library = importlib.import_module("kvcache")
    if "kvbench" not in sys.modules:
        # Only while its first line is read: the library must not come from the checkout.
        sys.path.insert(0, str(ROOT))
        try:
            importlib.import_module("kvbench")
        finally:
            sys.path.remove(str(ROOT))
    missing = _complete(library)
    if missing is None:
        for module in _NEEDED:
            importlib.import_module(module)
    return missing


def _complete(library: Any) -> str | None:
    """Give an old library's ``kvcache`` the names that it keeps elsewhere; what it does not have at all, or None."""
    for name, home in OLD_HOMES.items():
        if hasattr(library, name):
            continue
        try:
            setattr(library, name, getattr(importlib.import_module(home), name))
        except ModuleNotFoundError as error:
            if error.name != home:
                raise
            return f"this commit's kvcache does not fit the suite: it has no {home}"
        except AttributeError:
            return f"this commit's kvcache does not fit the suite: {home} has no {name}"
    if not hasattr(library, "kernel_observers"):
        library.kernel_observers = _old_observers()
    if not hasattr(library.CacheBackend, "row_start"):  # before resident batches
        library.CacheBackend.row_start = _padded_in_front
    if not hasattr(library.CacheBackend, "wants_info"):  # before policies saw what a search knows
        library.CacheBackend.wants_info, library.SearchInfo = False, None
    return None


def _old_observers() -> list[Any]:
    """Compiled kernels called their observers "watches"; before those, torch dispatched all operations."""
    try:
        observers: list[Any] = importlib.import_module("kvcache.kernels").watches
    except (ModuleNotFoundError, AttributeError):
        return []
    return observers


def _padded_in_front(backend: Any, row: int) -> int:
    sizes = backend.keys_values_wm_size_list
    return int(max(sizes) - sizes[row])
