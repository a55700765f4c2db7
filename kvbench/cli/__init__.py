"""The command line: ``kvbench``."""

from kvbench.cli.main import main

__all__ = ["main"]
