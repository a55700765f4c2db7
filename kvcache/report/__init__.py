"""Pages that people read: made from asv's results, replays, pytest-benchmark and traces; no server, no network."""

from kvcache.report.build import Inputs, build_report
from kvcache.report.errors import ReportError

__all__ = ["Inputs", "ReportError", "build_report"]
