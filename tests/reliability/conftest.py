"""The option ``--reliability=full``, and figures that are printed when the tests have ended."""

import pytest
from reliability.fork_server import ForkServer


def pytest_addoption(parser):
    parser.addoption(
        "--reliability",
        choices=["short", "full"],
        default="short",
        help="how much of the reliability tests is run: a few seconds each, or all",
    )


def pytest_collection_modifyitems(config, items):
    """The short form has none of the tests that are marked as the full one's."""
    if config.getoption("--reliability", default="short") == "full":
        return
    kept = [item for item in items if item.get_closest_marker("full") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.fixture
def is_full(request):
    """Whether all is run."""
    return request.config.getoption("--reliability", default="short") == "full"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Commands of kvbench, each in a process of its own."""
    server = ForkServer(tmp_path_factory.mktemp("commands"))
    yield server
    server.close()


@pytest.fixture
def figure(record_property):
    """Called with a line, prints it when the tests have ended."""
    return lambda line: record_property("figure", line)


def pytest_terminal_summary(terminalreporter):
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.stats.get(kind, [])]
    lines = [value for each in reports for name, value in getattr(each, "user_properties", []) if name == "figure"]
    if lines:
        terminalreporter.section("reliability")
        for line in sorted(dict.fromkeys(lines)):
            terminalreporter.write_line(line)
