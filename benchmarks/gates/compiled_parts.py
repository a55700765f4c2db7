"""What the library under test has compiled, and what it uses of that: seen by the interpreter, not told by the library.

A module that was built may still be unused: its import has another name, or the library falls back while it runs.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

__all__ = ["compiled_parts"]

GEOMETRY, ROWS, SIMULATIONS = "cartpole", 2, 2
KINDS = ("retrieve", "store", "slide", "clear")
STRATEGIES = ("fifo", "lru", "priority", "tree")

Workload = tuple[str, Callable[[], object]]


@functools.cache
def compiled_parts() -> dict[str, list[str]]:
    """Of each compiled module: ``built``, ``imported``, and ``FUNCTION in WORKLOAD`` where a call of it returned.

    ``has FUNCTION`` is there for each that it has, called or not. The workloads are small: one for each backend and
    eviction strategy, and a search.
    """
    import kvcache

    library = Path(kvcache.__file__).parent
    parts = {name: {"built"} for name in _built(library)}
    used = {name: set[str]() for name in parts}
    for workload, run in _workloads():
        for name, function in _returned(run, set(parts)):
            used[name].add(f"{function} in {workload}")
    for name in parts:
        if name in sys.modules:
            parts[name] |= {"imported", *(f"has {each}" for each in _functions(sys.modules[name])), *used[name]}
    return {name: sorted(found) for name, found in parts.items()}


def _built(library: Path) -> list[str]:
    """Names of the modules that lie in the library's folder, compiled: ``kvcache.storage._page_arrays``."""
    files = (each.relative_to(library.parent) for each in library.rglob(f"*{EXTENSION_SUFFIXES[-1]}"))
    return sorted(".".join([*each.parent.parts, each.name.partition(".")[0]]) for each in files)


def _functions(module: ModuleType) -> set[str]:
    """Of a module, and of its classes."""
    places = [module, *(each for each in vars(module).values() if isinstance(each, type))]
    return {name for each in places for name, value in vars(each).items() if callable(value) and name[:2] != "__"}


def _returned(run: Callable[[], object], modules: set[str]) -> set[tuple[str, str]]:
    """The functions of these modules, each with its module's name, that returned at least once while ``run`` ran."""
    found = set()

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_return":
            found.update((home, function.__name__) for home in _homes(function.__self__) if home in modules)

    # Whatever the library does wrong here, it does in the benchmarks too, and those say what.
    with contextlib.suppress(Exception):
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            run()
        finally:
            sys.setprofile(before)
    return found


def _homes(owner: Any) -> list[str]:
    """The modules that a function's module, or the classes of its object, belong to."""
    if isinstance(owner, ModuleType):
        return [owner.__name__]
    return [each.__module__ for each in type(owner).__mro__]


def _workloads() -> Iterator[Workload]:
    from kvcache import BACKENDS

    for name in BACKENDS:
        if name.startswith("new:"):
            yield name, functools.partial(_operate, name)
    for strategy in STRATEGIES:
        yield strategy, functools.partial(_operate, "new", eviction_strategy=strategy)
    yield "a search", _search


def _operate(backend: str, **options: Any) -> None:
    """Fill a cache, beyond what it has room for, and call each operation once."""
    from kvbench.replay.operations import operation_config, prepare_operation
    from kvcache import GEOMETRIES, make_backend

    config = replace(operation_config(GEOMETRIES[GEOMETRY], ROWS), **options)
    for kind in KINDS:
        operation = prepare_operation(kind, make_backend(backend, config))
        operation.prepare()
        operation.call()


def _search() -> None:
    """One of all environments."""
    from kvcache import GEOMETRIES
    from kvcache.world_model import WorldModel, WorldModelConfig, play

    geometry = replace(GEOMETRIES[GEOMETRY], env_num=ROWS, num_simulations=SIMULATIONS)
    model = WorldModel(WorldModelConfig(geometry, use_new_cache_manager=True))
    for _ in play(model, searches=1, seed=0):
        pass
