"""The wheel with torch, numpy and xxhash alone: the cache works there, and the suite says what it lacks."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("torch", "numpy", "xxhash")

PROGRAM = """
import importlib.util
import torch
import kvcache
from kvcache import BACKENDS, CacheConfig, Geometry, Scope, make_backend
from kvcache.world_model import Search, SearchConfig, WorldModel, WorldModelConfig, play

for absent in ("pandas", "pyarrow", "rich", "click"):
    assert importlib.util.find_spec(absent) is None, f"{absent} is there: this proves nothing"
geometry = Geometry("tiny", 2, 2, 8, 8, 2, 4, "rotary")
for name in BACKENDS:
    cache = make_backend(name, CacheConfig(geometry))
    tokens = torch.arange(2 * 2 * 2 * 4).float().view(2, 2, 2, 4)
    cache.lookup([0, 1], [None, None], Scope.ROOT)
    cache.assemble()
    for layer in cache.keys_values_wm:
        layer.update(tokens, -tokens)
    cache.store([0, 1], [10, 11], Scope.ROOT)
    assert cache.lookup([0, 1], [10, 11], Scope.NODE) == [2, 2], name
    cache.assemble()
    assert torch.equal(cache.keys_values_wm[0].get()[0], tokens), name
model = WorldModel(WorldModelConfig(geometry, use_new_cache_manager=True))
print(kvcache.__file__, len(list(play(model, 2, 0, SearchConfig(4)))))
"""


def closure(names):
    """Distributions by their names, with all that they need on this machine."""
    found = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if distribution.name.lower() in found:
            continue
        found[distribution.name.lower()] = distribution
        for text in distribution.requires or ():
            requirement, _, marker = text.partition(";")
            if "extra" not in marker:
                waiting.append(
                    requirement.split("[")[0].split("<")[0].split(">")[0].split("=")[0].split("!")[0].strip()
                )
    return found.values()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder with the wheel and what the cache needs, and nothing else: to be the only place of packages."""
    wheels, folder = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("bare")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", wheels, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for distribution in closure(NEEDED):
        tops = {Path(str(file)).parts[0] for file in distribution.files or () if ".." not in Path(str(file)).parts}
        for top in tops - {"__pycache__", "bin"}:
            place = Path(str(distribution.locate_file(top)))
            if place.exists() and not (folder / top).exists():
                (folder / top).symlink_to(place)
    return folder


def run(folder, *arguments):
    """A Python that sees ``folder`` and the standard library only."""
    return subprocess.run(
        [sys.executable, "-S", *arguments], cwd=folder, env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_cache_works_with_torch_numpy_and_xxhash_alone(bare):
    done = run(bare, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    place, searches = done.stdout.split()
    assert Path(place).is_relative_to(bare)
    assert searches == "2"


def test_the_suite_says_what_it_lacks_there(bare):
    done = run(bare, "-m", "kvbench", "replay", "trace.parquet")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: kvbench needs '")
    assert line.endswith("pip install 'kvcache[bench]'")


def test_what_the_wheel_brings(bare):
    assert (bare / "kvcache" / "py.typed").exists()
    assert (bare / "kvbench" / "py.typed").exists()
    for package in ("profile", "report"):
        assert list((bare / "kvbench" / package / "templates").iterdir())
    assert not (bare / "tests").exists()
