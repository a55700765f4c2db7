"""Files of results: read with their types checked, and written whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kvbench.errors import FileError
from kvbench.files import read_regular, whole_or_absent
from kvbench.parse import parse_json
from kvbench.text import clean

__all__ = ["Kind", "LeftOut", "ResultsError", "Scalars", "convert", "read_json", "read_rows", "write_json"]

Kind = TypeVar("Kind")
Scalars = dict[str, str | bool | int | float | None]  # settings, or what describes a machine
_MOST_FILES = 10  # named of those of which something was left out


class ResultsError(FileError):
    """A file that cannot be used: which one, what is wrong in it, and where it should come from."""

    def __init__(self, path: str | Path, fault: str, made_by: str = "") -> None:
        super().__init__(path, f"{fault}: give what {made_by} wrote" if made_by else fault)
        self.fault = fault


@dataclass
class LeftOut:
    """What did not fit and was left out, so that it does not hide the rest: file by file, why, each once.

    ``alike`` are faults that all files of a kind have: such files are counted, and the first is named.
    """

    faults: dict[str, dict[str, None]] = field(default_factory=dict)
    alike: set[str] = field(default_factory=set)

    def add(self, path: str | Path, fault: str, alike: bool = False) -> None:
        """One result of a file."""
        self.faults.setdefault(clean(str(path)), {})[clean(fault)] = None
        if alike:
            self.alike.add(clean(fault))

    def __len__(self) -> int:
        return sum(map(len, self.faults.values()))

    @property
    def files(self) -> list[tuple[str, str]]:
        """Each file, or the first of some that are alike, and what was wrong in it."""
        return [(path, why) for path, why, _ in self._files]

    @property
    def _files(self) -> list[tuple[str, str, str]]:
        """The same, with how much was left out of it."""
        found: list[tuple[str, str, str]] = []
        together: dict[str, list[str]] = {}
        for path, faults in self.faults.items():
            first = next(iter(faults))
            if first in self.alike:
                together.setdefault(first, []).append(path)
            else:
                more = f" (the first of {len(faults)})" if len(faults) > 1 else ""
                found.append((path, f"{first}{more}", _number(len(faults), "result")))
        old: list[tuple[str, str, str]] = []
        for why, paths in together.items():
            others = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
            old.append((f"{paths[0]}{others}", why, _number(len(paths), "file" if others else "result")))
        return [*old, *found]

    @property
    def lines(self) -> list[str]:
        """Sentences: how many results were left out of which files, and why."""
        found = [f"{number} left out: {path}: {why}" for path, why, number in self._files]
        rest = [each for path, each in self.faults.items() if next(iter(each)) not in self.alike]
        rest = rest[_MOST_FILES - len(found) + len(rest) :]
        more = [f"{_number(sum(map(len, rest)), 'result')} left out of {len(rest)} more files"] if rest else []
        return [*found[:_MOST_FILES], *more]


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def read_json(path: str | Path, kind: type[Kind], made_by: str, parse: Callable[[bytes], Any] = parse_json) -> Kind:
    """The content of a JSON file, its texts fit to be shown.

    Args:
        path: of the file.
        kind: of its content: a ``msgspec.Struct``, or what else msgspec converts to.
        made_by: what writes such files, for the error.
        parse: reads the bytes. The default refuses NaN and numbers too large for their type.

    Raises:
        ResultsError: the file cannot be read, is not JSON, or holds something else than ``kind``.
    """
    return convert(path, _parsed(path, made_by, parse), kind, made_by)


def read_rows(path: str | Path, kind: type[Kind], made_by: str, field: str, row: type[Any], left_out: LeftOut) -> Kind:
    """As ``read_json``; those rows of ``field`` that are not of the type ``row`` are left out.

    Raises ResultsError, as ``read_json``; also where no row is left.
    """
    first: ResultsError | None = None
    try:
        content = _parsed(path, made_by, parse_json)
    except ResultsError as error:
        first = error
        content = _parsed(path, made_by, lambda text: parse_json(text, keeps_rest=True))
    rows = content.get(field) if isinstance(content, dict) else None
    if isinstance(rows, list):
        kept: list[Any] = []
        for place, each in enumerate(rows):
            try:
                convert(path, each, row, made_by, f"$.{field}[{place}]")
                kept.append(each)
            except ResultsError as error:
                first = first or error
                left_out.add(path, error.fault)
        if first is not None and not kept:
            raise first
        content[field] = kept
    return convert(path, content, kind, made_by)


def _parsed(path: str | Path, made_by: str, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(read_regular(path))
    except FileNotFoundError:
        raise ResultsError(path, "no such file", made_by) from None
    except OSError as error:
        raise ResultsError(path, f"cannot be read ({error.strerror})", made_by) from None
    except ValueError as error:
        raise ResultsError(path, f"not JSON, or cut off ({clean(str(error))})", made_by) from None


# In our words: what is wrong with a value that is none of the allowed ones.
_NOT_AMONG = {"$.format": "a file of another kind,", "$.schema_version": "a version that this kvbench does not know,"}


def convert(path: str | Path, content: Any, kind: type[Kind], made_by: str, at: str = "$") -> Kind:
    """Parsed content as its type; ``at`` is where it was in the file. Raises ResultsError, as ``read_json`` does."""
    try:
        return msgspec.convert(content, kind)
    except (ValueError, RecursionError) as error:
        fault, _, place = clean(str(error)).replace("`", "").partition(" - at ")
        fault = fault.replace("Invalid enum value", _NOT_AMONG.get(place, "a value that is not known,"))
        place = place.replace("$", at, 1) if place else "" if at == "$" else at
        raise ResultsError(path, f"{fault} (at {place})" if place else fault, made_by) from None


def write_json(path: str | Path, content: msgspec.Struct) -> None:
    """Write a file of results, whole or not at all. Raises OSError, and ValueError for a number that JSON has not."""
    with whole_or_absent(path) as beside:
        beside.write_text(json.dumps(msgspec.to_builtins(content), indent=1, allow_nan=False) + "\n")
