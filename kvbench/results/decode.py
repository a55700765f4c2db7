"""Files of results: read with their types checked, and written whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kvbench.errors import FileError
from kvbench.files import read_regular, whole_or_absent
from kvbench.text import clean

__all__ = ["Kind", "ResultsError", "Scalars", "convert", "read_json", "write_json"]

Kind = TypeVar("Kind")
Scalars = dict[str, str | bool | int | float | None]  # settings, or what describes a machine


class ResultsError(FileError):
    """A file that cannot be used: which one, what is wrong in it, and where it should come from."""


def read_json(
    path: str | Path,
    kind: type[Kind],
    made_by: str,
    parse: Callable[[bytes], Any] = msgspec.json.decode,
    prepare: Callable[[Any], Any] = lambda content: content,
) -> Kind:
    """The content of a JSON file.

    Args:
        path: of the file.
        kind: of its content: a ``msgspec.Struct``, or what else msgspec converts to.
        made_by: what writes such files, for the error.
        parse: reads the bytes. The default refuses NaN and numbers too large for their type.
        prepare: changes the parsed content before its types are checked.

    Raises:
        ResultsError: the file cannot be read, is not JSON, or holds something else than ``kind``.
    """
    try:
        content = prepare(parse(read_regular(path)))
    except FileNotFoundError:
        raise ResultsError(path, f"no such file: give what {made_by} wrote") from None
    except OSError as error:
        raise ResultsError(path, f"cannot be read ({error.strerror}): give what {made_by} wrote") from None
    except (ValueError, RecursionError) as error:
        raise ResultsError(path, f"not JSON, or cut off ({clean(str(error))}): give what {made_by} wrote") from None
    return convert(path, content, kind, made_by)


def convert(path: str | Path, content: Any, kind: type[Kind], made_by: str) -> Kind:
    """Parsed content as its type. Raises ResultsError, as ``read_json`` does."""
    try:
        return msgspec.convert(content, kind)
    except (ValueError, RecursionError) as error:
        fault, _, place = clean(str(error)).replace("`", "").partition(" - at ")
        where = f" (at {place})" if place else ""
        raise ResultsError(path, f"{fault}{where}: give what {made_by} wrote") from None


def write_json(path: str | Path, content: msgspec.Struct) -> None:
    """Write a file of results, whole or not at all. Raises OSError, and ValueError for a number that JSON has not."""
    with whole_or_absent(path) as beside:
        beside.write_text(json.dumps(msgspec.to_builtins(content), indent=1, allow_nan=False) + "\n")
