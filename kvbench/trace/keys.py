"""The share of predicted latents that have a key of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.trace.schema import STORE

__all__ = ["FEW_DISTINCT_KEYS", "distinct_keys"]

# Below it most lookups find a key that several latents share. A world model that is untrained, or hardly trained, gives
# its predicted latents few keys: LightZero's last layers start at zero.
FEW_DISTINCT_KEYS = 0.5

_HELD = 2**21  # keys, at a time


def distinct_keys(events: Iterable[pa.RecordBatch]) -> float | None:
    """Distinct keys of the recurrent stores over their number; None where there are none.

    Some millions of keys are held at a time: those of a long trace are divided by their last bits.

    Args:
        events: of a trace, with the columns of ``EVENT_SCHEMA``; gone through several times.
    """
    stored = sum(len(keys) for keys in _stored_keys(events))
    if not stored:
        return None
    parts = -(-stored // _HELD)
    distinct = 0
    for part in range(parts):
        distinct += len(np.unique(np.concatenate([keys[keys % parts == part] for keys in _stored_keys(events)])))
    return distinct / stored


def _stored_keys(events: Iterable[pa.RecordBatch]) -> Iterator[np.ndarray]:
    for batch in events:
        recurrent = pc.and_(pc.equal(batch["kind"], STORE), pc.equal(batch["scope"], "recur"))
        yield batch["key"].filter(recurrent).to_numpy()
