"""What the gate's benchmarks share: this checkout's harness around the library under test, and what to measure."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from gates.compiled_parts import compiled_parts
from gates.import_times import IMPORT_TIMES
from suite.bridge import put_suite_in_place

PASSES = ("both", "metrics", "times")
FIRST_SEEDS = ("random", "0", "1")  # PYTHONHASHSEED: the gate's first pair has 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gate-pass",
        choices=PASSES,
        default="both",
        help="metrics: count and check, and time one call only; times: time, without counting; both (the default)",
    )
    parser.addoption(
        "--gate-library",
        metavar="FOLDER",
        help="fail unless the library that is measured lies there; without it, in the first folder of PYTHONPATH that "
        "has one",
    )
    parser.addoption(
        "--gate-other-parts",
        action="store_true",
        help="compare also with a saved library that uses other compiled parts",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Nobody takes one library for another: the one that is measured is the one that was named."""
    import kvcache

    named, measured = _named_library(session.config), Path(kvcache.__file__).resolve()
    if named is not None and not measured.is_relative_to(named.resolve()):
        raise pytest.UsageError(
            f"the library in {named} was named, but {measured.parent} would be measured: run 'pytest', and not 'python "
            "-m pytest', which puts the working folder first"
        )


def _named_library(config: pytest.Config) -> Path | None:
    named = config.getoption("--gate-library")
    if named:
        return Path(named)
    folders = (Path(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each)
    return next((each for each in folders if (each / "kvcache").is_dir()), None)


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports the library."""
    if config.getoption("--gate-pass") != "metrics" and "kvcache" not in sys.modules:
        IMPORT_TIMES.start()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = put_suite_in_place()
    if missing:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=missing))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    import torch

    machine_info |= {"torch": torch.__version__, "threads": torch.get_num_threads()}


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, object]) -> None:
    """Which library was measured, and what it uses of its compiled parts."""
    import kvcache

    commit_info |= {"library": kvcache.__file__, "version": getattr(kvcache, "__version__", "")}
    # Of the gate's own processes, those that measure times alone need not say it again.
    if config.getoption("--gate-pass") != "times" or config.getoption("--benchmark-save"):
        commit_info["compiled"] = compiled_parts()


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, machine_info: dict[str, object], compared_benchmark: dict[str, Any]
) -> None:
    """A library without its compiled parts is no base: whatever the other one does would look fast."""
    if put_suite_in_place() is not None:
        return
    saved = compared_benchmark["commit_info"]
    of_saved, own = (_used(each) for each in (saved.get("compiled", {}), compiled_parts()))
    if of_saved != own and not config.getoption("--gate-other-parts"):
        raise pytest.UsageError(
            f"the saved library ({saved.get('library', 'of no known place')}) uses other compiled parts than this one: "
            f"{_listed(of_saved)}, and this one {_listed(own)}; 'kvbench gate --plain' builds both alike"
        )


def _used(parts: dict[str, list[str]]) -> set[str]:
    return {module for module, uses in parts.items() if any(" in " in use for use in uses)}


def _listed(modules: set[str]) -> str:
    return ", ".join(sorted(modules)) or "none"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def wants_metrics(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--gate-pass") != "times"


@pytest.fixture
def wants_times(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--gate-pass") != "metrics"


@pytest.fixture
def runs_long(request: pytest.FixtureRequest) -> None:
    """Skips in all processes of a side but the first: what is deterministic in short is so in long."""
    if request.config.getoption("--gate-pass") == "times":
        pytest.skip("not timed")
    if os.environ.get("PYTHONHASHSEED", "random") not in FIRST_SEEDS:
        pytest.skip("measured by the first process of each side")
