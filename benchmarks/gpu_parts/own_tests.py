"""The part that runs the project's tests of kernels and devices."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from gpu_parts.device import Setting, row
from kvbench.results.gpu import GpuRow

__all__ = ["results", "tests"]

_TESTS = Path(__file__).parents[2] / "tests" / "cache"
_FILES = ("kernels", "test_staging.py", "world_model/test_devices.py", "world_model/test_model_steps.py")
_QUICK = ("test_staging.py",)


def tests(setting: Setting) -> Iterator[GpuRow]:
    """Tests of kernels, staging, devices and steps: those for CUDA are not skipped where there is a card."""
    chosen = _QUICK if setting.quick else _FILES
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", f"--junitxml={report}"]
        if find_spec("xdist") and not setting.quick:  # most of the time goes into compiling kernels
            command += ["-n", "4"]
        files = [str(_TESTS / each) for each in chosen]
        done = subprocess.run(
            [*command, *files], cwd=_TESTS.parents[1], env=os.environ, capture_output=True, text=True, check=False
        )
        if not report.is_file():
            last = (done.stdout + done.stderr).strip().splitlines()[-1:]
            raise RuntimeError(f"pytest wrote no report: {' '.join(last)}")
        yield from results(report.read_text())


def results(report: str) -> Iterator[GpuRow]:
    """Counts of a JUnit report, and a row for each test that failed."""
    suite = next(ElementTree.fromstring(report).iter("testsuite"))
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    bad = [
        case for case in suite.iter("testcase") if case.find("failure") is not None or case.find("error") is not None
    ]
    yield row("passed", total - skipped - len(bad), "tests")
    yield row("skipped", skipped, "tests")
    yield row("failed", len(bad), "tests", wanted="none", holds=not bad)
    for case in bad:
        fault = case.find("failure") if case.find("failure") is not None else case.find("error")
        said = "" if fault is None else fault.get("message", "").strip().partition("\n")[0]
        yield row(f"{case.get('classname')}.{case.get('name')}", holds=False, wanted="passes", reason=said)
