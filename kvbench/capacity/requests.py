"""The requests of a trace for curves: checked once, then gone through as often as sizes are tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from kvbench.capacity.census import Census, number_rows
from kvbench.capacity.sampling import Sample
from kvbench.trace.columns import Columns, whole_inferences
from kvbench.trace.reader import TraceReader
from kvbench.trace.schema import CLEAR, TraceError
from kvbench.trace.steps import Step, steps_of
from kvcache import Geometry, Scope

__all__ = ["Requests"]

IN_MEMORY = 200_000  # lookups whose steps are kept, some 150 bytes each; with more the file is read each time


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
        checker = reader.checker()
        self.census = Census.of(number_rows(_placed(reader.sound(checker)), searches))
        self.census.reach = checker.reach
        if self.geometry.slid_size < 1:
            fault = f"contexts of {self.geometry.context_length} tokens keep no past: there is nothing to size"
            raise TraceError(reader.path, fault)
        if not self.census.events:
            raise TraceError(reader.path, f"it has none of the first {searches} searches: leave --searches out")
        self.sample: Sample | None = None
        self.cannot_sample: str | None = None
        if most_events is not None and self.census.events > most_events:
            self.cannot_sample = _why_not(self.census)
            self.sample = None if self.cannot_sample else Sample.of(self.census, most_events)
        self._kept = list(self._read()) if self._lookups() <= IN_MEMORY else None

    def __iter__(self) -> Iterator[Step]:
        return self._read() if self._kept is None else iter(self._kept)

    def _lookups(self) -> float:
        """About how many are followed."""
        share = len(self.sample.chosen) / self.sample.periods if self.sample else 1
        return self.census.lookups[Scope.ROOT] + share * self.census.lookups[Scope.NODE]

    def _read(self) -> Iterator[Step]:
        """Whole inferences: all initial ones and clears, and those of the periods that are followed."""
        for rows in number_rows(whole_inferences(self._reader.batches()), self._searches):
            part = rows
            if self.sample is not None:
                part = rows[rows.is_root | rows.are(CLEAR) | self.sample.follows(rows.period)]
            if len(part.numbers):
                yield from steps_of(part.columns, part.numbers.tolist(), self._reader.header.actions)


def _placed(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Columns]]:
    """The columns of batches that follow each other, and the row number of the first of them."""
    first = 0
    for batch in batches:
        yield first, Columns.of(batch)
        first += batch.num_rows


def _why_not(census: Census) -> str | None:
    if len(census.periods) < 2:
        return "it never clears the recurrent pool between lookups"
    if census.crosses:
        return "its lookups mean contexts of earlier searches"
    return None
