"""The index of a profile: the file of ``kvbench profile`` that lists the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from kvbench.results.decode import ResultsError, Scalars, read_json
from kvbench.results.replay import Trace

__all__ = ["FORMAT", "INDEX", "SCHEMA_VERSION", "ProfileIndex", "ProfiledFile", "read_profile_index"]

INDEX = "profile.json"  # in the folder of a profile
FORMAT = "kvcache-profile"
SCHEMA_VERSION = 1


class ProfiledFile(Struct, frozen=True, kw_only=True):
    """One file: ``path`` is relative to the profile's folder; ``opens_with`` names the programs that show it."""

    kind: str
    path: str
    bytes: int
    opens_with: str


class ProfiledBackend(Struct, frozen=True, kw_only=True):
    """One backend: its files, and the ranges among its operations."""

    backend: str
    files: list[ProfiledFile]
    ranges: list[dict[str, Any]]


class ProfileIndex(Struct, frozen=True, kw_only=True):
    """The whole file: ``created`` is ISO 8601, ``command`` the arguments of kvbench."""

    format: Literal["kvcache-profile"]
    schema_version: Literal[1]
    created: str
    command: list[str]
    trace: Trace
    settings: dict[str, Any]
    machine: Scalars
    profiles: list[ProfiledBackend]


def read_profile_index(folder: str | Path) -> ProfileIndex:
    """Read the index of a profile.

    Raises:
        ResultsError: there is no index, it is damaged or of another version, or one of its files is missing or
            outside the folder.
    """
    folder = Path(folder)
    path = folder / INDEX
    index = read_json(path, ProfileIndex, "'kvbench profile'")
    for file in (each.path for profile in index.profiles for each in profile.files):
        if not (folder / file).resolve().is_relative_to(folder.resolve()):
            raise ResultsError(path, f"names a file outside of the folder ({file!r}): do not use this profile")
        if not (folder / file).is_file():
            raise ResultsError(path, f"its file {file!r} is missing: make the profile again")
    return index
