"""What ``setup.py`` compiles, where parts of the repository are not there."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_the_library_is_compiled_alone(tmp_path):
    """As the gate does it: with ``setup.py`` and ``kvcache/`` of a commit, and nothing of the suite."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(ROOT / "kvcache", tmp_path / "kvcache", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert {path.name.partition(".")[0] for path in tmp_path.rglob("*.so")} >= {
        "_cpu_kernels",
        "_page_arrays",
        "_slots",
        "_tree",
        "_tree_arrays",
    }


@pytest.mark.parametrize("disabled", [True, False])
def test_free_threaded_python_is_refused(disabled):
    """In one line that says so, before anything is compiled."""
    script = (
        "import sys, sysconfig; "
        f"sysconfig.get_config_vars()['Py_GIL_DISABLED'] = {int(disabled)}; sys.argv = ['setup.py', '--name']; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode == 1) is disabled
    assert ("does not run on free-threaded Python" in ended.stderr) is disabled
    assert "Traceback" not in ended.stderr
