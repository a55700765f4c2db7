"""Mutation testing: ``tox -e mutation -- kvcache/pool.py`` makes small changes to a file, and runs its tests on each.

The changes are mutmut's. Each is tried in a fork of a process that has collected the tests: only tests that reach the
changed lines run, the fastest first, up to the first failure. ``mutants.toml`` names the tests of each file, and the
survivors that are known, each with its reason. Any other survivor is an error: it needs a test. ``EVERY=5`` tries every
fifth mutant only.

Left out: docstrings, annotations, imports, ``__all__``, ``raise`` statements, messages of asserts, logging. Three
changes take ``strict=True`` from a call; one of them is tried. What runs at import (constants, defaults) is tried with
``IMPORTED=1`` only: all tests of the file run then, in a new import of everything, for each change.
"""

from __future__ import annotations

import gc
import importlib.machinery
import itertools
import json
import os
import resource
import signal
import sys
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import libcst as cst
import pytest
import torch  # imported once, for all forks
from _pytest.tmpdir import tmppath_result_key
from hypothesis import HealthCheck, Phase, settings
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.file_mutation import NEVER_MUTATE_FUNCTION_CALLS as NEVER
from mutmut.mutation.file_mutation import MutationVisitor, OuterFunctionProvider
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

KNOWN = Path(__file__).with_suffix(".toml")
MEMORY = 6 << 30  # bytes of a fork at most
BUDGETS = 0.8, 8.0  # seconds of tests for one mutant, and for a survivor that is not known
LONGEST = 0.4  # seconds of a test; slower ones are left out
OPTIONS = ["-q", "-p", "no:cacheprovider", "--capture=sys", "--hypothesis-profile=mutants", "-m", "not slow"]

torch.set_num_threads(1)
# A failure is enough: it need not be the smallest one.
settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, max_examples=25, report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


@dataclass
class Mutant:
    """One change of a file."""

    lines: range
    function: tuple[str, int] | None  # name and first line of the function that changes; None for the module or class
    name: str  # as a person reads it
    source: str


class Visitor(MutationVisitor):
    """Mutmut's, for decorated functions too: functions are exchanged here, not wrapped."""

    METADATA_DEPENDENCIES = (PositionProvider, OuterFunctionProvider, ParentNodeProvider)

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.found: list[tuple[Any, range]] = []  # the mutation and its lines
        self.texts = 0

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        never = isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in NEVER
        return never or isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom)

    def _create_mutations(self, node: cst.CSTNode) -> None:
        before = len(self.mutations)
        super()._create_mutations(node)
        new = [each for each in self.mutations[before:] if not _repeats(node, each.mutated_node)]
        made = [(each, self._lines(node)) for each in new]
        if self._is_text(node):
            self.texts += len(made)
        else:
            self.found += made

    def _lines(self, node: cst.CSTNode) -> range:
        """Of the statement around an expression, or of its header: not every line of those is traced."""
        around: Any = node
        while not isinstance(around, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            around = self.get_metadata(ParentNodeProvider, around)
        at = self.get_metadata(PositionProvider, around)
        end = at.end
        if isinstance(around, cst.BaseCompoundStatement):
            end = self.get_metadata(PositionProvider, around.body).start
        return range(at.start.line, end.line + 1)

    def _is_text(self, node: cst.CSTNode | None) -> bool:
        while node is not None:
            parent = self.get_metadata(ParentNodeProvider, node, None)
            if isinstance(node, cst.Raise) or (isinstance(parent, cst.Assert) and node is parent.msg):
                return True
            code = cst.Module([]).code_for_node(node) if isinstance(node, cst.Call | cst.Assign) else ""
            if code.startswith(("_log.", "_log =", "__all__")):
                return True
            node = parent
        return False


def _repeats(node: cst.CSTNode, mutated: Any) -> bool:
    """Whether a call loses ``strict=True``: it becomes ``strict=False`` in another mutant, and that is the same."""

    def is_strict(call: Any) -> bool:
        return isinstance(call, cst.Call) and "strict=True" in [cst.Module([]).code_for_node(arg) for arg in call.args]

    return is_strict(node) and not is_strict(mutated)


def mutants(path: Path, every: int) -> tuple[list[Mutant], int]:
    """All mutants of a file, or every n-th one, and the number of texts left out."""
    source = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    visitor = Visitor()
    module = wrapper.visit(visitor)
    positions, found = wrapper.resolve(PositionProvider), []
    for mutation, lines in visitor.found[::every]:
        changed = module.deep_replace(mutation.original_node, mutation.mutated_node).code
        outer, function = mutation.contained_by_top_level_function, None
        if isinstance(outer, cst.FunctionDef):
            function = outer.name.value, positions[outer].start.line - len(outer.decorators)
        name = f"{function[0] if function else 'module'}: {difference(source, changed)}"
        found.append(Mutant(lines, function, name, changed))
    return found, visitor.texts


def difference(source: str, changed: str) -> str:
    """The lines that differ, in one line."""
    before, after = source.splitlines(), changed.splitlines()
    while before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    same = next((i for i, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after))
    return " -> ".join(" ".join(" ".join(text[same:]).split()) for text in (before, after))


def in_fork(call: Callable[[], Any], seconds: int, silent: bool = True) -> Any:
    """What ``call`` returns in a fork, or None where that takes longer than so many seconds of its own time."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(20 * seconds)  # for one that waits for ever
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        gc.disable()
        if silent:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        try:
            with os.fdopen(theirs, "w") as pipe:
                pipe.write(json.dumps(call()))
        finally:  # whatever was raised: the rest of the program is the parent's
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def codes_of(source: str, path: Path) -> dict[tuple[str, int], CodeType]:
    """The functions of a file, by name and first line."""
    codes = [compile(source, str(path), "exec")]
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
    return {(each.co_name, each.co_firstlineno): each for each in codes}


class Place:
    """An imported file, whose functions are exchanged for a mutant's."""

    def __init__(self, path: Path, functions: list[FunctionType]) -> None:
        self.path = path
        self.functions = [each for each in functions if each.__code__.co_filename == str(path)]
        self.codes = codes_of(path.read_text(), path)

    def can_hold(self, mutant: Mutant) -> bool:
        """Whether a function's code changes: not its defaults, nor what runs at import."""
        new = codes_of(mutant.source, self.path)
        return mutant.function in new and new[mutant.function] != self.codes[mutant.function]

    def hold(self, mutant: Mutant) -> None:
        code = codes_of(mutant.source, self.path)[mutant.function]
        for each in self.functions:
            if (each.__code__.co_name, each.__code__.co_firstlineno) == mutant.function:
                each.__code__ = code


class TooSlow(BaseException):
    """A test that takes longer than one may."""


class Session:
    """A pytest plugin that runs the collected tests once for each mutant, instead of once.

    Attributes:
        killers: by file and by the mutant's number there, the first test that fails; "" for a survivor, None where a
            test does not end, and no entry where the file must be imported anew.
    """

    def __init__(self, files: dict[Path, list[Mutant]], known: set[str]) -> None:
        self.files, self.known = files, known
        self.killers: dict[str, dict[int, str | None]] = {}
        self.kills: Counter[str] = Counter()  # of each test

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for item in {item.path: item for item in reversed(session.items)}.values():
            self._passes(item)  # what a file's first test imports and compiles, all forks have
        found_out = in_fork(lambda: [self._reached(item) for item in session.items], 3600)
        reached = [(seconds, set(lines)) for seconds, lines in found_out]
        functions = [each for each in gc.get_objects() if type(each) is FunctionType]
        gc.freeze()  # a fork then copies no memory for the collector's marks
        for path, found in self.files.items():
            place, killers = Place(path, functions), self.killers.setdefault(str(path), {})
            for number, mutant in enumerate(found):
                if place.can_hold(mutant):
                    lines = {f"{path}:{line}" for line in mutant.lines}
                    tests = [(reached[i][0], each) for i, each in enumerate(session.items) if lines & reached[i][1]]
                    killers[number] = killer = self._killer(place, mutant, sorted(tests, key=self._worth))
                    self.kills[killer or ""] += 1
        return True

    def _worth(self, test: tuple[float, pytest.Item]) -> float:
        """Fast tests come first, and those that killed others before."""
        seconds, item = test
        return seconds / (1 + self.kills[item.nodeid])

    def _reached(self, item: pytest.Item) -> tuple[float, list[str]]:
        """Seconds and reached lines of a test; no lines where it fails or is too slow."""
        lines, names = set(), {str(path) for path in self.files}

        def trace(frame: Any, event: str, _: Any) -> Any:
            if frame.f_code.co_filename not in names:
                return None
            lines.add(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            return trace

        def stop(*_: Any) -> None:
            raise TooSlow

        signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
        began = time.process_time()
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            passes = self._passes(item)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        except TooSlow:
            passes = False
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        return time.process_time() - began, sorted(lines) if passes else []

    def _killer(self, place: Place, mutant: Mutant, tests: list[tuple[float, pytest.Item]]) -> str | None:
        """The first test that fails, of the fastest ones that fit into the budget."""

        def first_failure() -> str:
            place.hold(mutant)
            return next((item.nodeid for item in items if not self._passes(item)), "")

        killer: str | None = ""
        ends = list(itertools.accumulate(seconds for seconds, _ in tests))
        for budget in BUDGETS[: 1 if mutant.name in self.known else 2]:
            items = [item for end, (_, item) in zip(ends, tests, strict=True) if end <= budget or end == ends[0]]
            killer = killer or in_fork(first_failure, 5 + int(5 * budget))
            if killer is None:
                break
        return killer

    def _passes(self, item: Any) -> bool:
        if not getattr(item, "_request", False):
            item._initrequest()
        item.stash[tmppath_result_key] = {}  # no report says whether its folder is to be kept
        try:
            item.ihook.pytest_runtest_setup(item=item)
            item.ihook.pytest_runtest_call(item=item)
        except pytest.skip.Exception:
            pass
        except BaseException:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            item.session._setupstate.teardown_exact(None)
            return False
        item.ihook.pytest_runtest_teardown(item=item, nextitem=None)
        return True


def killer_at_import(path: Path, mutant: Mutant, tests: list[str]) -> str:
    """As ``Session``'s, for what runs at import: the tests are collected with the changed file."""
    unchanged = importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> Any:
        return compile(mutant.source, path, "exec") if loader.path == str(path) else unchanged(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    return "" if pytest.main([*OPTIONS, *tests, "-x"]) == pytest.ExitCode.OK else "any"


def examine(tests: dict[str, list[str]], known: set[str], every: int) -> Iterator[tuple[str, list[int], list[str]]]:
    """For each file: its name, numbers of mutants, texts and imported lines left out, endless ones, and survivors."""
    made = {Path(name).resolve(): mutants(Path(name).resolve(), every) for name in tests}
    session = Session({path: found for path, (found, _) in made.items()}, known)

    def run() -> Any:
        pytest.main([*OPTIONS, *dict.fromkeys(itertools.chain(*tests.values()))], plugins=[session])
        return session.killers

    all_killers = in_fork(run, 36_000)
    for name, (path, (found, texts)) in zip(tests, made.items(), strict=True):
        killers = {int(number): killer for number, killer in all_killers[str(path)].items()}
        imported = [number for number in range(len(found)) if number not in killers]
        if "IMPORTED" in os.environ:
            for number in imported:
                killers[number] = in_fork(lambda: killer_at_import(path, found[number], tests[name]), 120)  # noqa: B023
        survivors = [found[number].name for number, killer in sorted(killers.items()) if killer == ""]
        endless = sum(killer is None for killer in killers.values())
        yield name, [len(killers), texts, len(found) - len(killers), endless], survivors


def main(names: list[str]) -> int:
    settled = tomllib.loads(KNOWN.read_text())
    tests = {name: settled["tests"][name] for name in names or settled["tests"]}
    known = {each for of_file in settled["survivors"].values() for group in of_file.values() for each in group}
    new = 0
    for name, numbers, survivors in examine(tests, known, int(os.environ.get("EVERY", "1"))):
        total, texts, imported, endless = numbers
        unknown = [each for each in survivors if each not in known]
        killed = total - len(survivors)
        print(f"{name}: {total} mutants, {killed} killed ({killed / total:.1%}), {endless} of them by time; ", end="")
        print(f"{len(survivors) - len(unknown)} known survivors, {len(unknown)} new ones; ", end="")
        print(f"left out: {texts} texts, {imported} that run at import")
        print(*(f"  survives: {each}" for each in unknown), sep="\n", end="\n" * bool(unknown), flush=True)
        new += len(unknown)
    return int(new > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
