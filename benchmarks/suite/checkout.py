"""The harness of this checkout around the library of another commit.

asv installs an old commit's ``kvcache`` and runs the current checkout's benchmarks against it. What drives and times a
cache (``kvcache.trace``) must come from the checkout too, or a change of the harness would look like one of the cache.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path

__all__ = ["ROOT", "put_harness_in_place"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "kvcache.trace"


def put_harness_in_place() -> str | None:
    """Make ``kvcache.trace`` this checkout's, whichever ``kvcache`` is installed.

    Returns:
        None, or why it cannot be: the installed library lacks something that the harness needs.

    Raises:
        Exception: whatever the installed library raises when it is imported. One that is broken is not one that is old.
    """
    folder = ROOT / "kvcache" / "trace"
    library = importlib.import_module("kvcache")
    try:
        present = sys.modules.get(PACKAGE)
        if present is None or Path(str(present.__file__)).parent != folder:
            for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
                del sys.modules[name]
            spec = importlib.util.spec_from_file_location(
                PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            assert spec is not None
            assert spec.loader is not None
            package = importlib.util.module_from_spec(spec)
            sys.modules[PACKAGE] = package
            spec.loader.exec_module(package)
            library.trace = package
        for module in ("replay", "operations"):
            importlib.import_module(f"{PACKAGE}.{module}")
    except (ImportError, AttributeError) as error:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        asking = next(name for name in reversed(frames) if not name.startswith("<frozen importlib"))
        if not Path(asking).is_relative_to(folder):
            raise
        return f"this commit's kvcache does not fit the harness: {error}"
    return None
