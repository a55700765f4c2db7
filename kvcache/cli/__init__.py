"""The command line: ``kvcache``."""

from kvcache.cli.main import main

__all__ = ["main"]
