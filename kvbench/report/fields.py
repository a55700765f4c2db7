"""Typed access to JSON that others wrote: a field that is missing or of another type is named, with its file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from kvbench.report.errors import ReportError
from kvbench.report.text import clean

__all__ = ["Fields", "read_json"]


class Fields:
    """One object of a JSON file.

    Args:
        path: of the file.
        value: the object.
        where: its place in the file, for messages.
    """

    def __init__(self, path: Path, value: Any, where: str = "") -> None:
        self.path = path
        self._where = where
        if not isinstance(value, dict):
            raise ReportError(path, f"{where or 'the file'} is not an object")
        self._value = value

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def __iter__(self) -> Any:
        return iter(self._value)

    def text(self, name: str, default: str | None = None) -> str:
        return str(self._typed(name, (str,), "a text", default))

    def number(self, name: str) -> float:
        value = _finite(self._typed(name, (int, float), "a number"))
        if value is None:
            raise ReportError(self.path, f"{self._place(name)} is not a number")
        return value

    def number_or_none(self, name: str) -> float | None:
        return self.number(name) if name in self else None

    def numbers(self, name: str | None = None) -> dict[str, float]:
        """An object of numbers: this one, or that in a field of it."""
        fields = self if name is None else self.object(name)
        return {each: fields.number(each) for each in fields}

    def number_list(self, name: str) -> list[float]:
        numbers = [_finite(each) for each in self._typed(name, (list,), "a list")]
        if None in numbers:
            raise ReportError(self.path, f"{self._place(name)} is not a list of numbers")
        return [each for each in numbers if each is not None]

    def object(self, name: str) -> Fields:
        return Fields(self.path, self._value.get(name), self._place(name))

    def objects(self, name: str) -> list[Fields]:
        values = self._typed(name, (list,), "a list")
        return [Fields(self.path, each, f"{self._place(name)}[{place}]") for place, each in enumerate(values)]

    def texts(self, name: str) -> list[str]:
        return [str(each) for each in self._typed(name, (list,), "a list")]

    def anything(self, name: str) -> Any:
        return self._value.get(name)

    def fault(self, name: str, what: str) -> ReportError:
        """An error that names the file and one field of this object."""
        return ReportError(self.path, f"{self._place(name)} {what}")

    def _place(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name

    def _typed(self, name: str, kinds: tuple[type, ...], called: str, default: Any = None) -> Any:
        value = self._value.get(name, default)
        if not isinstance(value, kinds):
            raise ReportError(self.path, f"{self._place(name)} is {'missing' if value is None else 'not ' + called}")
        return value


def _finite(value: Any) -> float | None:
    """A number as one that can be drawn; None for whatever is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        return None
    return number if math.isfinite(number) else None


def read_json(path: str | Path) -> Fields:
    """The object that a JSON file holds, its texts fit to be shown.

    Raises:
        ReportError: the file cannot be read, or is not JSON, or not an object.
    """
    path = Path(path)
    try:
        return Fields(path, clean(json.loads(path.read_bytes())))
    except FileNotFoundError:
        raise ReportError(path, "no such file") from None
    except OSError as error:
        raise ReportError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ReportError):
            raise
        raise ReportError(path, f"not JSON, or cut off: {error}") from None
