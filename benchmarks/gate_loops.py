"""Changes by instructions: operations of the manager get a loop, of a length that adds a share to their own count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path

from kvbench.files import temporary_folder
from kvbench.gate.instructions import count_instructions
from kvbench.gate.processes import GateFixture

__all__ = ["KINDS", "Cell", "loops_source", "size_loops"]

# Storage, geometry and kind of a benchmark of an operation.
Cell = tuple[str, str, str]

# Which method an operation is. "retrieve" is two of them.
KINDS = {
    "hash": "hash_states", "lookup": "lookup", "assemble_equal": "assemble", "assemble_unequal": "assemble",
    "store": "store", "slide": "store", "clear": "clear_recur_cache",
}  # fmt: skip
PLACES = [
    *product(("private", "slab", "paged"), ("pong", "visual-match")),
    *product(["private"], ("cartpole", "multitask")),
]
CELLS: list[Cell] = [(*place, kind) for place in PLACES for kind in KINDS]
ONE_CELL: Cell = ("private", "pong", "lookup")
TURNS = 1000  # of the loop whose turns are counted

LONGER = """

def _longer(method, loops):
    from itertools import repeat

    def longer(self, *arguments):
        for _ in repeat(None, loops.get((self.config.storage, self.geometry.name), 0)):  # allocates no numbers
            pass
        return method(self, *arguments)

    return longer


KVCacheManager.{method} = _longer(KVCacheManager.{method}, {loops})
"""


def loops_source(loops: Mapping[Cell, int]) -> str:
    """Source to append to the manager's module. Kinds that are one method get the shortest of their loops."""
    of_methods: dict[str, dict[tuple[str, str], int]] = {}
    for (storage, geometry, kind), turns in loops.items():
        place, known = (storage, geometry), of_methods.setdefault(KINDS[kind], {})
        known[place] = min(turns, known.get(place, turns))
    return "".join(LONGER.format(method=method, loops=known) for method, known in of_methods.items())


def size_loops(clone: Path, cells: Collection[Cell], share: float) -> dict[Cell, int]:
    """Turns of a loop by which each cell has ``share`` more instructions; those with room for one."""
    counts, wrapped, turn = _counts(clone)
    loops = {cell: round((share * counts[cell] - (wrapped[cell] - counts[cell])) / turn) for cell in cells}
    found = {cell: turns for cell, turns in loops.items() if turns >= 0}
    if not found:
        raise ValueError(
            f"{share:.1%} of {', '.join('-'.join(cell) for cell in cells)} is less than a loop of no turns"
        )
    return found


@cache
def _counts(clone: Path) -> tuple[dict[Cell, float], dict[Cell, float], float]:
    """Instructions of all cells as they are and with a loop of no turns; and of one turn."""
    with temporary_folder("kvcache-loops") as folder:
        fixture = GateFixture(clone, "HEAD", folder)
        manager = fixture.sides["head"] / "kvcache" / "manager.py"
        source = manager.read_text()
        manager.write_text(source + loops_source(dict.fromkeys(CELLS, 0)))
        counts, wrapped = _count(fixture, CELLS)
        manager.write_text(source + loops_source({ONE_CELL: TURNS}))
        longer = _count(fixture, [ONE_CELL])[1]
    return counts, wrapped, (longer[ONE_CELL] - wrapped[ONE_CELL]) / TURNS


def _count(fixture: GateFixture, cells: Iterable[Cell]) -> list[dict[Cell, float]]:
    names = {cell: "test_operation[new:{}-{}-{}]".format(*cell) for cell in cells}
    counted = count_instructions(fixture, list(names.values()), limit=1.0)
    return [{cell: counted.counts[side][name] for cell, name in names.items()} for side in ("base", "head")]
