"""The clock of ``import kvcache``: every round imports anew, in a process that has torch."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 0.1
PROGRAM = """
from gates.import_times import IMPORT_TIMES
IMPORT_TIMES.start()
for _ in range(2):
    IMPORT_TIMES.import_once()
    print(IMPORT_TIMES())
import kvcache
IMPORT_TIMES.start()
"""


def run(folder, library, torch=""):
    (folder / "torch.py").write_text(torch)
    (folder / "kvcache.py").write_text(library)
    paths = os.pathsep.join([str(folder), str(ROOT / "benchmarks")])
    return subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_each_round_imports_the_library_and_not_torch(tmp_path):
    wait = f"import time; time.sleep({SECONDS})"
    found = run(tmp_path, wait, torch="import time; time.sleep(1)")
    first, second = map(float, found.stdout.split())
    assert SECONDS <= first < 1
    assert second >= first + SECONDS


def test_a_library_that_is_imported_already_is_told(tmp_path):
    assert "its import can be timed no more" in run(tmp_path, "").stderr


def test_a_library_that_cannot_be_imported_is_told(tmp_path):
    assert "ImportError: kvcache cannot be imported" in run(tmp_path, "raise ValueError").stderr
