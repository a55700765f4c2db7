"""The two consoles: results on standard output, progress and remarks on standard error."""

from rich.console import Console

__all__ = ["STDERR", "STDOUT"]

WIDTH_OF_FILES = 120

# A table that goes to a file or a pipe is as wide as it needs; one on a terminal is as wide as that.
STDOUT = Console() if Console().is_terminal else Console(width=WIDTH_OF_FILES)
STDERR = Console(stderr=True)
