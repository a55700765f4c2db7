"""A repository like this one in small: a library without torch, and gates whose clock is the library's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["CONFTEST", "GATES", "LIBRARY", "THRESHOLDS", "commit", "edit", "git", "make_repository"]

LIBRARY = "kvcache/__init__.py"
GATES = "benchmarks/gates/test_gate_tiny.py"
CONFTEST = "benchmarks/gates/conftest.py"
THRESHOLDS = "benchmarks/gates/thresholds.toml"

FILES = {
    ".gitignore": "__pycache__/\n",
    "pyproject.toml": '[tool.pytest.ini_options]\naddopts = "-ra"\n',
    LIBRARY: """\
MICROSECONDS = {"store": 5, "lookup": 2}
COPIES = {"store": 3, "lookup": 0}
__version__ = "7.5"


def returned(kind):
    return kind
""",
    CONFTEST: """\
import pytest


def pytest_addoption(parser):
    parser.addoption("--gate-pass", choices=("both", "metrics", "times"), default="both")
    parser.addoption("--gate-library")
    parser.addoption("--gate-other-parts", action="store_true")


def pytest_benchmark_update_commit_info(config, commit_info):
    import kvcache

    commit_info |= {"library": kvcache.__file__, "version": kvcache.__version__}
""",
    GATES: """\
import kvcache
import pytest


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


CLOCK = Clock()


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("kind", ["store", "lookup", "slide"])
def test_operation(benchmark, kind, request):
    if kind not in kvcache.COPIES:
        pytest.skip(f"this commit has no {kind!r}")
    asked = request.config.getoption("--gate-pass")
    if asked != "times":
        benchmark.extra_info["metrics"] = {"copies": kvcache.COPIES[kind]}
    benchmark.extra_info["timed"] = asked != "metrics"
    costs = iter([3, 1, 2])

    def call():
        CLOCK.seconds += next(costs) * kvcache.MICROSECONDS[kind] * 1e-6

    benchmark.pedantic(call, rounds=3)
    if kvcache.returned(kind) != kind:
        pytest.fail(f"{kind} returned | wrong content\\nof all things", pytrace=False)
""",
    THRESHOLDS: '[time]\ndirection = "lower"\nrelative = 0.05\n\n[metrics]\ncopies = { direction = "lower" }\n',
}


def make_repository(folder: Path) -> Path:
    """Make the repository in a folder, with one commit."""
    for path, text in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(repository: Path) -> str:
    """Commit everything; the commit's name."""
    git(repository, "add", "--all")
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false"]
    git(repository, *identity, "commit", "--quiet", "--allow-empty", "--message", "a change")
    return git(repository, "rev-parse", "HEAD")


def edit(repository: Path, path: str, old: str, new: str) -> None:
    """Replace what must be there."""
    text = (repository / path).read_text()
    assert old in text
    (repository / path).write_text(text.replace(old, new))


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
