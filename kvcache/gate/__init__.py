"""The regression gate: two commits measured side by side, and a verdict that can be trusted."""

from kvcache.gate.processes import GATES, GateError, Laboratory
from kvcache.gate.session import BUDGET, GateReport, run_gate
from kvcache.gate.thresholds import Thresholds, ThresholdsError
from kvcache.gate.verdicts import Row, Verdict

__all__ = [
    "BUDGET",
    "GATES",
    "GateError",
    "GateReport",
    "Laboratory",
    "Row",
    "Thresholds",
    "ThresholdsError",
    "Verdict",
    "run_gate",
]
