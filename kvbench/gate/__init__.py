"""The regression gate: two commits measured side by side, and a verdict that can be trusted."""

from kvbench.gate.processes import GATES, GateError, GateFixture
from kvbench.gate.rows import Row
from kvbench.gate.session import BUDGET, GateReport, run_gate
from kvbench.gate.thresholds import Thresholds, ThresholdsError
from kvbench.judge.verdict import Verdict

__all__ = [
    "BUDGET", "GATES", "GateError", "GateFixture", "GateReport", "Row", "Thresholds", "ThresholdsError", "Verdict",
    "run_gate",
]  # fmt: skip
