"""Plans over a tiny trace, for the tests of sweeps."""

from __future__ import annotations

from pathlib import Path

from kvbench.sweep.cells import Cell, cells_of, trace_files
from kvbench.sweep.libraries import library_in_use
from kvbench.sweep.plan import read_plan

SMALL = """
trace = "tiny.parquet"
backend = ["legacy", "new"]
storage = ["private", "slab", "paged"]
capacity = ["default", 3]
eviction = ["fifo", "lru"]
"""  # 2 of legacy and 12 others


def write_plan(folder: Path, text: str = SMALL) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def cells_in(folder: Path, text: str = SMALL) -> list[Cell]:
    """The cells of a plan in a folder that has its traces."""
    plan = read_plan(write_plan(folder, text))
    return cells_of(plan, trace_files(plan), [library_in_use()])
