"""``python -m kvbench``, and the command ``kvbench``."""

from __future__ import annotations

import sys
from io import TextIOWrapper

__all__ = ["main"]

_OURS = ("kvbench", "kvcache")


def main() -> None:
    """Run the command line. Ends with one line where a package is missing that ``kvcache`` alone does not need."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no text is lost where a console lacks its letters
    try:
        from kvbench.cli import main as command

        command(prog_name="kvbench")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing in _OURS:
            raise
        sys.exit(f"Error: kvbench needs {missing!r}, which is not installed: pip install 'kvcache[bench]'")


if __name__ == "__main__":
    main()
