"""The digests that an adapter expects, from the text of a LightZero that need not be installed.

``python tests/cache/integrations/digests.py PATH_OF_A_LIGHTZERO_CHECKOUT`` prints those of all methods that an adapter
reads, found and expected. A new adapter's ``reads`` is made with it; the rule is that of ``guard.source_digest``.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

from kvcache.integrations.lightzero.guard import text_digest
from kvcache.integrations.lightzero.installation import ADAPTERS

FOLDER = Path("lzero/model/unizero_world_models")


def digests(checkout: Path) -> dict[str, str]:
    """The digest of every method of ``WorldModel`` and of the classes that it is derived from."""
    return {
        name: digest
        for file in ("cache_window.py", "open_loop.py", "reanalysis_context.py", "world_model.py")
        if (checkout / FOLDER / file).exists()
        for name, digest in _of_file((checkout / FOLDER / file).read_text()).items()
    }


def _of_file(text: str) -> dict[str, str]:
    lines = text.splitlines(keepends=True)
    found = {}
    for owner in (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)):
        for method in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
            first = min(node.lineno for node in (method, *method.decorator_list))
            found[method.name] = text_digest("".join(inspect.getblock(lines[first - 1 :])))
    return found


def main(checkout: Path) -> None:
    found = digests(checkout)
    for adapter in ADAPTERS:
        print(adapter.name)
        for method, expected in adapter.reads.items():
            print(f"    {method}: found {found.get(method)}, expected {expected}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
