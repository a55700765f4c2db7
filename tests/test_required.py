"""``KVCACHE_REQUIRE``: guards that cannot sleep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKIPS = """
import pytest

def test_compiled(): pytest.skip("not compiled")
def test_triton(): pytest.importorskip("no_triton_here", reason="triton is not installed")
def test_cuda(): pytest.skip("no CUDA device")
def test_expected(): pytest.xfail("not compiled")
"""


def outcomes(folder, required, source=SKIPS):
    (folder / "test_skips.py").write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "KVCACHE_REQUIRE": required}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "required", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr)


def test_nothing_is_required_by_default(tmp_path):
    code, said = outcomes(tmp_path, "")
    assert code == 0
    assert "3 skipped, 1 xfailed" in said


@pytest.mark.parametrize(("required", "failed"), [("compiled", 1), ("triton", 1), ("compiled,triton", 2)])
def test_what_is_required_may_not_be_skipped(tmp_path, required, failed):
    code, said = outcomes(tmp_path, required)
    assert code == 1
    assert f"{failed} failed, {3 - failed} skipped, 1 xfailed" in said
    assert "KVCACHE_REQUIRE forbids this skip" in said


def test_a_module_may_not_be_skipped_either(tmp_path):
    code, said = outcomes(tmp_path, "triton", 'import pytest\npytest.importorskip("no_triton_here")\n')
    assert code != 0
    assert "KVCACHE_REQUIRE forbids this skip" in said


def test_an_unknown_word_is_an_error(tmp_path):
    code, said = outcomes(tmp_path, "compiler")
    assert code == 4
    assert "KVCACHE_REQUIRE has 'compiler': choose out of browser, compiled, triton" in said
