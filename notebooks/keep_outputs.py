"""Runs notebooks, and keeps what they print and draw: ``python notebooks/keep_outputs.py [SOURCE.py ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

__all__ = ["SOURCES", "executed"]

HERE = Path(__file__).parent
SOURCES = sorted(HERE.glob("[0-9]_*.py"))
SECONDS = 120  # for a cell; on a quiet machine a whole notebook takes some seconds


def executed(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source, with its outputs."""
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # random ones would be changes
        cell.metadata.pop("execution", None)
    return notebook


def main() -> None:
    for source in map(Path, sys.argv[1:] or map(str, SOURCES)):
        nbformat.write(executed(source), source.with_suffix(".ipynb"))
        print(source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
