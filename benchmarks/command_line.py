"""What commands of this folder share: arguments that are checked before anything runs, and help with its defaults."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["Help", "new_file", "positive"]


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Descriptions as they are written, and the default of each argument that has a help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


def positive(text: str) -> int:
    """A positive whole number."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number


def new_file(text: str) -> Path:
    """A file that can be written once everything is measured."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder for it, or it is one")
    return path
