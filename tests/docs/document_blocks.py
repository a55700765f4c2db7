"""Blocks of code in README and docs, and a run of them in order in a fresh clone.

``python tests/docs/document_blocks.py README.md docs/index.md`` does what a new user does: it clones the repository's
last commit, makes a virtual environment, and runs every block of each page in order. That takes minutes: ``tox -e
readme``. What is said behind a block's language decides: ``no-run`` is never run (it needs LightZero), ``slow`` in that
run alone.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NOT_RUN", "ROOT", "SLOW", "Block", "blocks_of", "clone", "run"]

ROOT = Path(__file__).resolve().parents[2]
NOT_RUN, SLOW = "no-run", "slow"
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a page; ``info`` is what stands behind its language."""

    page: str
    language: str
    info: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in ("sh", "python") and NOT_RUN not in self.info


def blocks_of(page: Path) -> list[Block]:
    """All of a page, in order."""
    name = str(page.relative_to(ROOT))
    return [Block(name, language, info.strip(), text) for language, info, text in _BLOCK.findall(page.read_text())]


def clone(folder: Path) -> None:
    """The last commit, as somebody else gets it."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)


def run(blocks: Iterable[Block], folder: Path, programs: Path) -> Iterator[tuple[Block, str]]:
    """Run blocks one after the other in a folder, as they stand; each with what it printed.

    ``programs`` is a folder that has ``python``, ``pip`` and ``kvbench``.

    Raises:
        CalledProcessError: one failed; it has the output.
    """
    given = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for block in blocks:
        by = ["python", "-P", "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run([*by, block.text], cwd=folder, env=given, check=True, capture_output=True, text=True)
        yield block, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--programs", type=Path, help="the bin folder of a virtual environment, instead of a new one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        programs = arguments.programs
        if programs is None:
            programs = Path(temporary) / "venv" / "bin"
            subprocess.run([sys.executable, "-m", "venv", programs.parent], check=True)
        for page in arguments.pages:
            folder = Path(temporary) / page.stem
            clone(folder)
            blocks = [each for each in blocks_of(page.resolve()) if each.is_run]
            start = time.perf_counter()
            try:
                for block, _ in run(blocks, folder, programs):
                    print(f"{page}, done after {time.perf_counter() - start:.0f} s:\n{block.text}", flush=True)
            except subprocess.CalledProcessError as error:
                sys.exit(f"{page}: this block fails:\n{error.cmd[-1]}\n{error.stdout}\n{error.stderr}")


if __name__ == "__main__":
    main()
