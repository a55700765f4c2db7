"""Requests for other tools: of a recorded search, or of what was imported."""

from __future__ import annotations

from pathlib import Path

from kvbench.requests.opened import open_trace
from kvbench.requests.oracle_general import write_oracle_general
from kvbench.requests.reader import RequestReader
from kvbench.requests.searches import requests_of_searches
from kvbench.requests.table import write_csv

__all__ = ["EXPORTS", "export_requests"]

EXPORTS = ("oracle-general", "csv")


def export_requests(path: Path, form: str, output: Path) -> int:
    """Write the requests of a trace to ``output``, whole or not at all; return their number.

    Args:
        path: of a trace, recorded or imported.
        form: out of ``EXPORTS``.
        output: to be written.

    Raises:
        TraceError: the trace is not sound.
        FileError: a number is too large for the format.
        OSError: ``output`` cannot be written.
    """
    reader = open_trace(path)
    batches = reader.batches() if isinstance(reader, RequestReader) else requests_of_searches(reader)
    if form == EXPORTS[0]:
        return write_oracle_general(output, batches)
    return write_csv(output, batches, has_times=isinstance(reader, RequestReader) and reader.has_times)
