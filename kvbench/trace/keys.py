"""The share of predicted latents that have a key of their own."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from kvbench.trace.schema import STORE

__all__ = ["FEW_DISTINCT_KEYS", "distinct_keys"]

# Below it most lookups find a key that several latents share. A world model that is untrained, or hardly trained, gives
# its predicted latents few keys: LightZero's last layers start at zero.
FEW_DISTINCT_KEYS = 0.5


def distinct_keys(events: pa.Table) -> float | None:
    """Distinct keys of the recurrent stores over their number; None where there are none.

    Args:
        events: of a trace, with the columns of ``EVENT_SCHEMA``.
    """
    recurrent = pc.and_(pc.equal(events["kind"], STORE), pc.equal(events["scope"], "recur"))
    keys = events["key"].filter(recurrent)
    return pc.count_distinct(keys).as_py() / len(keys) if len(keys) else None
