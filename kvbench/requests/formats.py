"""The formats of other systems: how each is read, and what its sizes mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from kvbench.requests.integers import read_integers
from kvbench.requests.oracle_general import read_oracle_general
from kvbench.requests.prompts import BAILIAN, MOONCAKE
from kvbench.requests.schema import RequestHeader, SizeUnit
from kvbench.requests.source import SourceFile
from kvbench.requests.table import Columns, read_csv
from kvbench.requests.writer import write_requests

__all__ = ["CSV", "FORMATS", "import_requests"]

CSV = "csv"


@dataclass(frozen=True)
class Format:
    """How a format is read, as batches of ``REQUEST_SCHEMA``, and the unit of its sizes."""

    read: Callable[[SourceFile, Columns], Iterator[pa.RecordBatch]]
    size_unit: SizeUnit


FORMATS: dict[str, Format] = {
    "mooncake": Format(lambda source, columns: MOONCAKE.read(source), "tokens"),
    "bailian": Format(lambda source, columns: BAILIAN.read(source), "tokens"),
    "oracle-general": Format(lambda source, columns: read_oracle_general(source), "bytes"),
    CSV: Format(read_csv, "bytes"),
    "plain": Format(lambda source, columns: read_integers(source), "entries"),
}


def import_requests(
    source: SourceFile,
    form: str,
    output: Path,
    columns: Columns,
    license_note: str | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> int:
    """Write the requests of a file to ``output``, whole or not at all; return their number.

    Args:
        source: to be read.
        form: a name out of ``FORMATS``.
        output: to be written.
        columns: of a CSV file; the other formats have theirs.
        license_note: what may be done with the source.
        progress: is told how many bytes of the source were read, now and then.

    Raises:
        SourceError: the file is not of that format.
        TraceError: it has no requests.
        OSError: ``output`` cannot be written.
    """
    is_csv = form == CSV
    header = RequestHeader.create(
        source_format=form,
        file=source.path.name,
        sha256=source.sha256,
        license=license_note,
        size_unit=FORMATS[form].size_unit if columns.size or not is_csv else "entries",
        hashed_keys=is_csv and columns.hashes_keys,
        settings=asdict(columns) if is_csv else {},
    )

    def watched() -> Iterator[pa.RecordBatch]:
        for batch in FORMATS[form].read(source, columns):
            progress(source.bytes_read)
            yield batch

    return write_requests(output, header, watched())
