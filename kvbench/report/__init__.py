"""Pages that people read: made from asv's results, replays, pytest-benchmark and traces; no server, no network."""

from kvbench.report.build import build_report
from kvbench.report.inputs import MOST_HISTORIES, Inputs
from kvbench.report.site import ReportError

__all__ = ["MOST_HISTORIES", "Inputs", "ReportError", "build_report"]
