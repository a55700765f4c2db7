"""What benchmarks/gate_trials.py plants in a clone of this repository, series by series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gate_loops import CELLS, KINDS, Cell, loops_source, size_loops
from gate_plants import PLANTS, more

__all__ = ["BENCHMARKS", "SERIES", "Change", "Series"]

PLANTED_IN = Path("kvcache") / "manager.py"
THRESHOLDS = Path("benchmarks") / "gates" / "thresholds.toml"
GATES = Path("benchmarks") / "gates"

CARTPOLE = "operation and cartpole"

# Appended to the manager's module: methods are replaced by ones that do a little more.
SLOWED = """

def _slowed(method, share):
    import time

    def slowed(method, own):
        def slow(*arguments):
            start = time.perf_counter_ns()
            result = method(*arguments)
            end = start + (time.perf_counter_ns() - start) * (1 + share) - own
            while time.perf_counter_ns() < end:
                pass
            return result

        return slow

    # What the wrapper costs of itself is no part of what is planted.
    laps = []
    probe = slowed(min, 0)
    for _ in range(2000):
        before = time.perf_counter_ns()
        probe(1, 2)
        between = time.perf_counter_ns()
        min(1, 2)
        laps.append(2 * between - before - time.perf_counter_ns())
    return slowed(method, sorted(laps)[len(laps) // 2])


KVCacheManager.{method} = _slowed(KVCacheManager.{method}, {share})
"""
# The first lookup that would miss asks for some other key.
STALE = """

def _stale(lookup):
    def found(self, envs, keys, scope):
        keys = list(keys)
        for row, (env, key) in enumerate(zip(envs, keys)):
            missing = key is not None and key not in self.init_pools[env] and key not in self.recur_pool
            if missing and scope is Scope.NODE and len(self.recur_pool) and not getattr(self, "_was_stale", False):
                self._was_stale = True
                keys[row] = next(iter(self.recur_pool))
        return lookup(self, envs, keys, scope)

    return found


KVCacheManager.lookup = _stale(KVCacheManager.lookup)
"""

# Methods, and the benchmarks that are about them.
BENCHMARKS = {
    "hash_states": "hash",
    "lookup": "lookup",
    "assemble": "assemble",
    "store": "store or slide",
    "clear_recur_cache": "clear",
}


@dataclass(frozen=True)
class Change:
    """One change of a clone.

    Attributes:
        name: for the table of runs.
        keyword: the benchmarks that are about it, as pytest's ``-k`` has it.
        appended: source, to the manager's module.
        replaced: in which file, what, and with what; None: the file is removed.
        longer: which benchmarks' operations get more instructions.
        share: how many more.
    """

    name: str
    keyword: str = ""
    appended: str = ""
    replaced: tuple[tuple[Path, str, str | None], ...] = ()
    longer: tuple[Cell, ...] = ()
    share: float = 0

    def plant(self, clone: Path) -> None:
        loops = loops_source(size_loops(clone, self.longer, self.share)) if self.longer else ""
        with (clone / PLANTED_IN).open("a") as file:
            file.write(self.appended + loops)
        for path, old, new in self.replaced:
            text = (clone / path).read_text()
            if old not in text:
                raise ValueError(f"{path} has no {old!r}: mend the series")
            if new is None:
                (clone / path).unlink()
            else:
                (clone / path).write_text(text.replace(old, new))


@dataclass(frozen=True)
class Series:
    """One kind of trial.

    Attributes:
        what: for the table.
        wanted: exit codes that are right.
        changes: planted in turn.
        options: of the gate.
        is_narrow: whether only the benchmarks are run that the change is about.
    """

    what: str
    changes: Sequence[Change]
    wanted: tuple[int, ...] = (1,)
    options: tuple[str, ...] = ()
    is_narrow: bool = False


def _in_methods(source: str, methods: Sequence[str], share: float = 0) -> list[Change]:
    """The same in one method after the other."""
    filled = source.replace("{share}", f"{share:.2f}")
    return [Change(each, BENCHMARKS[each], filled.replace("{method}", each)) for each in methods]


def _longer(cell: Cell, share: float) -> Change:
    """One operation with more instructions; its own benchmark is run."""
    return Change("-".join(cell), "operation and new:{}-{}-{}]".format(*cell), longer=(cell,), share=share)


def _adding(statement: str) -> list[Change]:
    """One tensor operation more in one method after the other."""
    setup = "import torch; one, other = torch.zeros(1), torch.zeros(1)"
    return [Change(each, keyword, more(each, setup, after=statement)) for each, keyword in BENCHMARKS.items()]


def _together(name: str, changes: Sequence[Change]) -> Change:
    return Change(name, appended="".join(each.appended for each in changes))


def _edit(name: str, path: Path, old: str, new: str | None, keyword: str = CARTPOLE) -> Change:
    """Limits and compiled parts show in any benchmark."""
    return Change(name, keyword, replaced=((path, old, new),))


COUNTED = ("--no-times",)
# Of the others 1 % is less than the call of a function.
LONGER = [
    (storage, geometry, kind)
    for storage, geometry, kind in CELLS
    if KINDS[kind] in ("store", "assemble") and (storage == "private" or geometry != "pong")
]
COSTLY = ("assemble", "store")  # 3 % of the others is less than planting it costs
TIMED = ("assemble", "store", "hash_states", "lookup")
SETUP, METRICS = Path("setup.py"), Path("kvbench/metrics.py")
OPERATIONS, FILLS = GATES / "test_gate_operations.py", GATES / "test_gate_fills.py"
LOST = [
    _edit("an extension that setup.py names no more", SETUP, '    "kvcache.storage._page_arrays",\n', ""),
    _edit("a source that is gone", Path("kvcache/storage/_page_arrays.c"), "", None),
    _edit("a wrong name in an import", Path("kvcache/slots.py"), "kvcache._slots import", "kvcache._slot import"),
    _edit("no C at all", SETUP, "for name, path in SOURCES.items()", "for name, path in ()"),
]
LOOSENED = [
    _edit("of times", THRESHOLDS, "relative = 0.05", "relative = 0.5"),
    _edit("of times, in us", THRESHOLDS, "absolute = 0.1", "absolute = 100"),
    _edit("of copies", THRESHOLDS, "[time]", "[metrics.bytes_copied]\nrelative = 0.5\n\n[time]"),
    _edit("of hits", THRESHOLDS, "[time]", '[metrics.hit]\ndirection = "higher"\n\n[time]'),
    _edit("in metrics.py", METRICS, '"bytes copied", "bytes")', '"bytes copied", "bytes", better="higher")'),
]
REMOVED = [
    _edit("an operation", OPERATIONS, '"lookup", "assemble_equal"', '"assemble_equal"'),
    _edit("a geometry", FILLS, '"pong", "visual-match"', '"visual-match"', "fill"),
    _edit("a file", GATES / "test_gate_replays.py", "", None, "replay or hash"),
    _edit("a skip", OPERATIONS, "    if backend not in AVAILABLE:", '    if kind == "store":'),
    _edit(
        "a counter", FILLS, '        "strided_bytes": strided_bytes(made.keys_values_wm),\n', "", "fill and cartpole"
    ),
]
SERIES = {
    "same": Series("a commit against itself", [Change("nothing")], wanted=(0, 3)),
    "slower-10": Series("one operation 10 % slower", _in_methods(SLOWED, TIMED, 0.10), is_narrow=True),
    "slower-10-of-all": Series("one operation 10 % slower, all benchmarks", _in_methods(SLOWED, TIMED, 0.10)),
    "slower-10-all": Series(
        "all operations 10 % slower", [_together("all", _in_methods(SLOWED, tuple(BENCHMARKS), 0.10))]
    ),
    "slower-30-half": Series("half of all 30 % slower", [_together("half", _in_methods(SLOWED, COSTLY, 0.30))]),
    "slower-30-all": Series(
        "all operations 30 % slower", [_together("all", _in_methods(SLOWED, tuple(BENCHMARKS), 0.30))]
    ),
    "same-counted": Series("a commit against itself, counted", [Change("nothing")], wanted=(0,), options=COUNTED),
    "longer-1": Series(
        "one operation 1 % more instructions",
        [_longer(cell, 0.0115) for cell in LONGER],
        options=COUNTED,
        is_narrow=True,
    ),
    "longer-10-all": Series(
        "all operations 10 % more instructions", [Change("all", longer=tuple(CELLS), share=0.10)], options=COUNTED
    ),
    "slower-3": Series("one operation 3 % slower", _in_methods(SLOWED, COSTLY, 0.03), wanted=(0, 3), is_narrow=True),
    "copy": Series(
        "one tensor copy more",
        _adding("one.copy_(other)"),
        options=COUNTED,
        is_narrow=True,
    ),
    "allocation": Series(
        "one allocation more",
        _adding("torch.empty(1)"),
        options=COUNTED,
        is_narrow=True,
    ),
    "stale": Series("one stale hit more", [Change("lookup", "replay", STALE)], options=COUNTED, is_narrow=True),
    "compiled": Series("a compiled part missing", LOST, options=COUNTED, is_narrow=True),
    "loosened": Series("a limit loosened", LOOSENED, options=COUNTED, is_narrow=True),
    "removed": Series("a benchmark removed", REMOVED, options=COUNTED, is_narrow=True),
}
SERIES |= {
    name: Series(plant.what, [Change(name, plant.keyword, plant.source)], options=COUNTED, is_narrow=True)
    for name, plant in PLANTS.items()
}
