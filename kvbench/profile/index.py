"""The index of a profile: a JSON file that lists what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kvbench.errors import KvbenchError

__all__ = ["INDEX", "INDEX_FORMAT", "INDEX_SCHEMA_VERSION", "ProfileError", "read_profile_index"]

INDEX = "profile.json"  # in the folder of a profile
INDEX_FORMAT = "kvcache-profile"
INDEX_SCHEMA_VERSION = 1


class ProfileError(KvbenchError):
    """A profile that cannot be used: which file, and what is wrong with it."""


def read_profile_index(folder: str | Path) -> dict[str, Any]:
    """Read the index of a profile: its files and what is in them.

    Returns:
        ``format``, ``schema_version``; ``created`` (ISO 8601, UTC); ``command`` (arguments of kvbench); ``trace`` (as
        in a replay's JSON: ``file``, ``sha256``, ``searches``, ``geometry``, ...); ``settings`` (``device``,
        ``dtype``, ``eviction``, ``capacity``, ``searches``, ``threads``); ``machine`` (processor, versions); and
        ``profiles``, one of each backend: ``backend``, ``files`` (``ProfileFile``'s attributes, all of them there) and
        ``ranges`` (the rows of ``BackendProfile.operations`` of that kind).

    Raises:
        ProfileError: there is no index, it is damaged or of another version, a field that readers need is missing or
            of another type, or one of its files is missing or outside the folder.
    """
    folder = Path(folder)
    path = folder / INDEX
    try:
        index = json.loads(path.read_text())
        version = index["schema_version"]
        version = version if index["format"] == INDEX_FORMAT else None
    except FileNotFoundError:
        raise ProfileError(f"{path}: no such file: is this a folder that 'kvbench profile' wrote?") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProfileError(f"{path}: not the index of a profile: {error!r}") from None
    if version != INDEX_SCHEMA_VERSION:
        raise ProfileError(f"{path}: schema version {version!r}, but this kvcache reads {INDEX_SCHEMA_VERSION}")
    for file in _checked_files(path, index):
        if not (folder / file).resolve().is_relative_to(folder.resolve()):
            raise ProfileError(f"{path}: names a file outside of the folder: {file!r}")
        if not (folder / file).is_file():
            raise ProfileError(f"{path}: its file {file!r} is missing")
    content: dict[str, Any] = index
    return content


def _checked_files(path: Path, index: dict[str, Any]) -> list[str]:
    """The files of an index. Raises ProfileError unless all fields that readers need exist, with the right types."""
    _check(path, index, "", {"command": list, "trace": dict, "profiles": list})
    _check(path, index["trace"], "trace.", {"file": str})
    found = []
    for number, profile in enumerate(index["profiles"]):
        _check(path, profile, f"profiles[{number}].", {"backend": str, "files": list})
        for place, file in enumerate(profile["files"]):
            where = f"profiles[{number}].files[{place}]."
            _check(path, file, where, {"kind": str, "path": str, "opens_with": str, "bytes": int})
            if "\0" in file["path"]:
                raise ProfileError(f"{path}: {where}path is no path: {file['path']!r}")
            found.append(file["path"])
    return found


def _check(path: Path, value: Any, where: str, kinds: dict[str, type]) -> None:
    if not isinstance(value, dict):
        raise ProfileError(f"{path}: {where.removesuffix('.')} is not an object")
    for name, kind in kinds.items():
        if not isinstance(value.get(name), kind) or isinstance(value[name], bool):
            raise ProfileError(f"{path}: {where}{name} is {'not of its type' if name in value else 'missing'}")
