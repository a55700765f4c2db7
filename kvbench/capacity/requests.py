"""The requests of a trace for curves: checked once, then read as often as sizes are tried, without a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

import numpy as np

from kvbench.capacity.census import Census, Rows, number_rows
from kvbench.capacity.sampling import Sample
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import CLEAR, Event, TraceError
from kvbench.trace.steps import PackedSteps, Step, steps_of
from kvcache import Geometry, Scope

__all__ = ["Requests"]

_EVENTS = 2_048  # as many are dicts at a time
IN_MEMORY = 500_000  # lookups whose steps are kept, packed: some 50 bytes each


class Requests(Iterable[Step]):
    """The steps of a trace, or of its first searches; of a large trace those of a sample.

    Args:
        reader: of the trace.
        searches: how many of the first ones; None is all.
        most_events: a trace of more is sampled, so that about as many are followed; None follows all.

    Attributes:
        census: of all that is asked for, sampled or not.
        sample: None where all is followed.
        cannot_sample: why a trace of more events is followed whole; None where it is not.

    Raises:
        TraceError: it is not sound, or there are no such searches.
    """

    def __init__(self, reader: TraceReader, searches: int | None = None, most_events: int | None = None) -> None:
        self._reader, self._searches = reader, searches
        self.geometry: Geometry = reader.header.geometry
        _check(reader, searches)
        self.census = Census.of(self._rows())
        if not self.census.events:
            raise TraceError(reader.path, f"it has none of the first {searches} searches: leave --searches out")
        self.sample: Sample | None = None
        self.cannot_sample: str | None = None
        if most_events is not None and self.census.events > most_events:
            self.cannot_sample = _why_not(self.census)
            self.sample = None if self.cannot_sample else Sample.of(self.census, most_events)
        self._kept = PackedSteps(self._read()) if self._lookups() <= IN_MEMORY else None

    def __iter__(self) -> Iterator[Step]:
        return iter(self._kept if self._kept is not None else self._read())

    def _lookups(self) -> float:
        """About how many are followed."""
        share = len(self.sample.chosen) / self.sample.periods if self.sample else 1
        return self.census.lookups[Scope.ROOT] + share * self.census.lookups[Scope.NODE]

    def _rows(self) -> Iterator[Rows]:
        return number_rows(self._reader.batches(), self._searches)

    def _read(self) -> Iterator[Step]:
        return steps_of(event for rows in self._rows() for event in _events(rows, self.sample))


def _check(reader: TraceReader, searches: int | None) -> None:
    for _ in takewhile(lambda event: searches is None or event["search"] < searches, reader.sound_events()):
        pass


def _why_not(census: Census) -> str | None:
    if len(census.periods) < 2:
        return "it never clears the recurrent pool between lookups"
    if census.crosses:
        return "its lookups mean contexts of earlier searches"
    return None


def _events(rows: Rows, sample: Sample | None) -> Iterator[tuple[int, Event]]:
    """Events with their row numbers: all initial inferences and clears, and the periods that are sampled."""
    numbers, batch = np.arange(rows.batch.num_rows), rows.batch
    if sample is not None:
        numbers = np.flatnonzero(rows.is_root | rows.is_kind[CLEAR] | sample.follows(rows.period))
        batch = batch.take(numbers)
    numbers += rows.first
    for first in range(0, len(numbers), _EVENTS):
        part = slice(first, first + _EVENTS)
        yield from zip(numbers[part].tolist(), batch.slice(first, _EVENTS).to_pylist(), strict=True)
