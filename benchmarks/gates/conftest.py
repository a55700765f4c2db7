"""What the gate's benchmarks share: this checkout's harness around the library under test, and what to measure."""

from __future__ import annotations

import sys

import pytest
from gates.import_times import IMPORT_TIMES
from suite.bridge import put_suite_in_place

PASSES = ("both", "metrics", "times")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--gate-pass",
        choices=PASSES,
        default="both",
        help="metrics: count and check, and time one call only; times: time, without counting; both (the default)",
    )


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
    """Which library was measured, so that nobody compares a commit with itself unnoticed."""
    import kvcache

    commit_info["library"] = kvcache.__file__


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
