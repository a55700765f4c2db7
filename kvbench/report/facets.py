"""What readers filter pages by: the geometry, storage, metric and machine of a series, and all else that it has."""

from __future__ import annotations

from collections.abc import Iterable

from kvbench.history.series import Series
from kvcache import GEOMETRIES

__all__ = ["facets_of", "facets_together"]

_CALLED = {"backend": "storage"}  # what a parameter of the suite's is called on a page
_TRACE, _GEOMETRY = "trace", "geometry"


def facets_of(series: Series) -> dict[str, str]:
    """By what a series is found, those first that every report of the suite has."""
    own = {_CALLED.get(name, name): value for name, value in series.cell.items()}
    if _GEOMETRY not in own:
        # The longest name: "pong" may be a part of another's.
        named = [name for name in GEOMETRIES if name in own.get(_TRACE, "")]
        own |= {_GEOMETRY: max(named, key=len)} if named else {}
    first = {name: own.pop(name) for name in (_GEOMETRY, "storage") if name in own}
    return {**first, "metric": series.metric, "machine": series.machine, **own}


def facets_together(group: Iterable[Series]) -> dict[str, list[str]]:
    """Of several series: each facet with all its values."""
    found: dict[str, dict[str, None]] = {}
    for series in group:
        for name, value in facets_of(series).items():
            found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items()}
