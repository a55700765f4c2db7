"""How fast a machine was at each commit: legacy is measured there, and its code is left alone."""

from __future__ import annotations

import numpy as np

__all__ = ["FEWEST_CONTROLS", "logs_of", "machine_pace"]

FEWEST_CONTROLS = 3  # of a machine: fewer say more of themselves than of it
_ROUNDS = 20
_SMALLEST_RESIDUAL = 1e-3  # of logarithms: what is nearer than a thousandth is as near as can be


def logs_of(times: np.ndarray) -> np.ndarray:
    """Logarithms; NaN where there is no positive time."""
    logs = np.full(times.shape, np.nan)
    np.log(times, out=logs, where=np.isfinite(times) & (times > 0))
    return logs


def machine_pace(controls: np.ndarray) -> np.ndarray | None:
    """How slow a machine was at each commit, as a factor on its usual time.

    A control's time is taken for its own usual time, times the machine's pace at the commit. Both are fitted together
    (least absolute deviations of the logarithms, by reweighted least squares): a control that is measured since lately
    says how the late commits compare with each other, and nothing of those before.

    ``controls`` are ``[controls, commits]``, times; NaN where one was not measured.

    Returns ``[commits]``, its median 1; NaN at commits with no control. None with fewer than ``FEWEST_CONTROLS``.
    """
    logs = logs_of(controls)
    logs = logs[np.count_nonzero(~np.isnan(logs), axis=1) > 1]  # another one has nothing to be compared with
    known = ~np.isnan(logs)
    if len(logs) < FEWEST_CONTROLS:
        return None
    seen = known.any(axis=0)
    logs, known = logs[:, seen], known[:, seen]
    values, weights = np.where(known, logs, 0.0), known.astype(float)
    for _ in range(_ROUNDS):
        pace = _fitted(values, weights)
        usual = np.average(values - pace, axis=1, weights=weights)
        residuals = np.abs(values - pace - usual[:, None])
        weights = known / np.maximum(residuals, _SMALLEST_RESIDUAL)
    found = np.full(controls.shape[1], np.nan)
    found[seen] = np.exp(pace - np.median(pace))
    return found


def _fitted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Commits' part of a weighted least squares fit by a part of each control and one of each commit, ``[commits]``."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    moments = np.diag(weights.sum(axis=0)) - weights.T @ shares
    centred = weights * (values - np.average(values, axis=1, weights=weights)[:, None])
    # Of pieces of the history that no control joins, each is fitted around its own mean: the smallest solution.
    return np.asarray(np.linalg.lstsq(moments, centred.sum(axis=0), rcond=None)[0])
