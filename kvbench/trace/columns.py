"""Events as columns of numbers: what whole row groups are checked and grouped by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kvbench.trace.schema import EVENT_SCHEMA, KINDS, SCOPES

__all__ = ["SCOPE_NAMES", "UNKNOWN", "Columns", "whole_inferences"]

SCOPE_NAMES = tuple(dict.fromkeys(scope for scopes in SCOPES.values() for scope in scopes))
UNKNOWN = -1  # in place of the number of a kind or a scope: null, or a name that is none

_TYPES = {each.name: each.type for each in EVENT_SCHEMA if not pa.types.is_dictionary(each.type)}
_ZEROS = {name: pa.scalar(0, pa.int8()).cast(each) for name, each in _TYPES.items()}


@dataclass(frozen=True)
class Columns:
    """Some events of a trace.

    Attributes:
        kind: of each, its place in ``KINDS``, or ``UNKNOWN``.
        scope: of each, its place in ``SCOPE_NAMES``, or ``UNKNOWN``.
        values: the other columns, by name; zero stands for null.
        nulls: where these are null, by name.
    """

    kind: np.ndarray
    scope: np.ndarray
    values: dict[str, np.ndarray]
    nulls: dict[str, np.ndarray]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Columns:
        """The events of a batch of ``EVENT_SCHEMA``."""
        columns = {name: batch.column(name) for name in _ZEROS}
        nulls = {name: each.is_null().to_numpy(zero_copy_only=False) for name, each in columns.items()}
        values = {
            name: (each.fill_null(_ZEROS[name]) if each.null_count else each).to_numpy(zero_copy_only=False)
            for name, each in columns.items()
        }
        return cls(_numbered(batch.column("kind"), KINDS), _numbered(batch.column("scope"), SCOPE_NAMES), values, nulls)

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, rows: slice | np.ndarray) -> Columns:
        parts = ({name: each[rows] for name, each in some.items()} for some in (self.values, self.nulls))
        return Columns(self.kind[rows], self.scope[rows], *parts)

    def __add__(self, other: Columns) -> Columns:
        """These events and the ones after them."""
        joined = np.concatenate
        return Columns(
            joined([self.kind, other.kind]),
            joined([self.scope, other.scope]),
            {name: joined([each, other.values[name]]) for name, each in self.values.items()},
            {name: joined([each, other.nulls[name]]) for name, each in self.nulls.items()},
        )

    def list_of(self, name: str) -> list[int | float | bool | None]:
        """A column of numbers; None stands for null."""
        values, nulls = self.values[name], self.nulls[name]
        if nulls.any():
            values = values.astype(object)
            values[nulls] = None
        listed: list[int | float | bool | None] = values.tolist()
        return listed


def _numbered(column: pa.DictionaryArray, names: tuple[str, ...]) -> np.ndarray:
    """The place in ``names`` of each name, or ``UNKNOWN``."""
    known = [names.index(each) if each in names else UNKNOWN for each in column.dictionary.to_pylist()]
    places = np.array([*known, UNKNOWN], dtype=np.int64)  # the last is that of null
    numbered: np.ndarray = places[column.indices.fill_null(-1).to_numpy(zero_copy_only=False)]
    return numbered


def whole_inferences(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Columns]]:
    """The events of batches that follow each other, divided between inferences, and the row of the first of them."""
    first, begun = 0, None
    for batch in batches:
        columns = Columns.of(batch) if begun is None else begun + Columns.of(batch)
        number = columns.values["batch"]
        begins = np.flatnonzero(number[1:] != number[:-1])
        end = int(begins[-1]) + 1 if len(begins) else 0
        if end:
            yield first, columns[:end]
        first, begun = first + end, columns[end:]
    if begun is not None and len(begun):
        yield first, begun
