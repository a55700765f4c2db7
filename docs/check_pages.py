"""A hook of mkdocs: the build fails if a page would load something from a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import BuildError

_LOADED = re.compile(r"<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)")
_STYLED = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')\s]+)")


def on_post_build(config: Any) -> None:
    """Raise BuildError, naming page and address, for the first one found."""
    for path in sorted(Path(config["site_dir"]).rglob("*")):
        pattern = {".html": _LOADED, ".css": _STYLED}.get(path.suffix)
        found = pattern.search(path.read_text(encoding="utf-8")) if pattern else None
        if found:
            raise BuildError(f"{path.relative_to(config['site_dir'])} loads {found[1]}: the pages must need no network")
