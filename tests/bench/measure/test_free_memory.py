"""What is free, and what is said where it is not enough."""

import resource
import subprocess
import sys

import psutil
import pytest

from kvbench.measure import free_memory
from kvbench.measure.free_memory import MemoryShortError, free_bytes, require_memory


def test_no_more_is_free_than_the_machine_has():
    assert 0 < free_bytes() <= psutil.virtual_memory().total


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(("limit", "free"), [("3000000000\n", 2_000_000_000), ("500", 0), ("max", None)])
def test_a_container_has_its_own_limit(tmp_path, monkeypatch, version, limit, free):
    files = [(str(tmp_path / f"limit{each}"), str(tmp_path / f"used{each}")) for each in (0, 1)]
    monkeypatch.setattr(free_memory, "_CGROUPS", files)
    monkeypatch.setattr(psutil, "virtual_memory", type("Memory", (), {"available": 10**13}))
    (tmp_path / f"limit{version}").write_text(limit)
    (tmp_path / f"used{version}").write_text("1000000000\n")
    assert free_bytes() == (10**13 if free is None else free)


def test_so_has_a_process():
    code = "from kvbench.measure.free_memory import free_bytes; print(free_bytes())"

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (12 * 10**9, 12 * 10**9))

    done = subprocess.run([sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 12 * 10**9


def test_what_does_not_fit_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(free_memory, "free_bytes", lambda device: 4_100_000)
    require_memory("this", 4_100_000, "buy more")
    with pytest.raises(MemoryShortError, match=r"^this needs about 12\.3 GB, and 4\.1 MB are free: buy more$"):
        require_memory("this", 12_345_678_901, "buy more")
    monkeypatch.setattr(free_memory, "free_bytes", lambda device: 7)
    with pytest.raises(MemoryShortError, match="needs about 8 bytes, and 7 bytes are free"):
        require_memory("this", 8, "buy more")
