"""Libraries that cells run with: the one in use, or a commit's wheel, built once and told by its digest."""

from __future__ import annotations

import functools
import hashlib
import io
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from kvbench.files import folder_whole_or_absent, read_regular, temporary_folder
from kvbench.gate.build import BUILD, LIBRARY, GateError, extract_base, extract_files, run_merged
from kvbench.gate.environment import environment
from kvbench.gate.processes import find_commit
from kvbench.sweep.cells import COMMIT

__all__ = ["Wheel", "digest_of", "folder_of", "library_in_use", "source_digest", "unpack_wheel", "wheels_of"]

_SOURCE = "source "
_DIGITS = 16
_LONGEST = 600  # seconds of a build
_PARTS = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")  # that a build reads, besides the library
_BACKEND = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
_NOT_SOURCE = {"_built_from.py"}  # written by a build


class Wheel(Struct, frozen=True):
    """A commit's library, built: the commit's hash, and the wheel with its SHA-256."""

    commit: str
    path: Path
    sha256: str

    @property
    def library(self) -> str:
        """What its cells call it."""
        return f"{COMMIT}{self.commit}"


@functools.cache
def library_in_use() -> str:
    """What tells this library from others: a digest of its source."""
    return f"{_SOURCE}{source_digest(LIBRARY)}"


def folder_of(package: str) -> Path:
    """Where a package is imported from."""
    spec = find_spec(package)
    assert spec is not None
    return Path(str(spec.origin)).parent


def source_digest(package: str) -> str:
    """A digest of a package's modules as they are on this machine."""
    root, found = folder_of(package), hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.name not in _NOT_SOURCE:
            found.update(f"{path.relative_to(root).as_posix()} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:_DIGITS]


def digest_of(content: bytes) -> str:
    """SHA-256 of what is handed to workers."""
    return hashlib.sha256(content).hexdigest()


def wheels_of(revisions: Iterable[str], checkout: Path, folder: Path, say: Callable[[str], None]) -> list[Wheel]:
    """A wheel of each revision of the repository that ``checkout`` is in; those in ``folder`` are taken from there.

    Raises GateError: no such revision, or it cannot be built.
    """
    commits = {find_commit(checkout, each): each for each in revisions}
    return [_wheel(checkout, commit, name, folder / commit, say) for commit, name in commits.items()]


def _wheel(checkout: Path, commit: str, name: str, folder: Path, say: Callable[[str], None]) -> Wheel:
    if not folder.is_dir():
        say(f"building {name} ({commit[:8]}) ...")
        with temporary_folder("kvcache-wheel") as sources, folder_whole_or_absent(folder) as beside:
            _build(checkout, commit, sources, beside)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise GateError(f"{folder} has {len(wheels)} wheels and not one: remove that folder, and run this again")
    return Wheel(commit, wheels[0], digest_of(read_regular(wheels[0])))


def _build(checkout: Path, commit: str, sources: Path, wheels: Path) -> None:
    extract_base(checkout, commit, sources)
    extract_files(checkout, commit, _PARTS, sources)
    if not (sources / BUILD).exists() and not (sources / _PARTS[0]).exists():
        raise GateError(f"{commit[:8]} has no {BUILD} and no {_PARTS[0]}: no wheel can be built of it")
    own = environment() | {"SOURCE_DATE_EPOCH": "315532800"}  # 1980: the first that a wheel's times can have
    done = run_merged([sys.executable, "-c", _BACKEND, str(wheels)], sources, _LONGEST, env=own)
    if done.returncode or not list(wheels.glob("*.whl")):
        raise GateError(f"no wheel of {commit[:8]} (exit code {done.returncode}): {_last_line(done.stdout)}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def unpack_wheel(content: bytes, folder: Path) -> Path:
    """The folder that has ``kvcache`` of a wheel; unpacked there once."""
    place = folder / digest_of(content)
    if not place.is_dir():
        beside = place.with_name(f"{place.name}-unfinished")
        shutil.rmtree(beside, ignore_errors=True)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(beside, [each for each in archive.namelist() if each.startswith(f"{LIBRARY}/")])
        beside.rename(place)
    return place
