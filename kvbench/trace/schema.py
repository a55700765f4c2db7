"""What a trace file holds: the columns of its events, its header, and what is wrong with a bad one.

A trace is one Parquet file. Each row is one event of one environment; the header is JSON in the file's metadata. Rows
of one inference share a ``batch`` number and stand together, in this order: lookups, generates, assembles, stores,
clears.

Schema version 1.1 adds one event: a clear of one environment's init cache, with that environment in ``env``. Version
1.2 adds several leaves of an environment in one inference: rows of one batch, each with its own simulation number. A
file says the lowest version that its events need. So an older kvcache reads what it understands, and refuses the rest.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kvbench.errors import KvbenchError
from kvbench.parse import parse_json
from kvbench.text import clean
from kvbench.trace.limits import HEADER_BYTES, LEVELS, NAME_LENGTH, levels_of, out_of_bounds
from kvcache import Geometry, __version__

__all__ = [
    "COLUMNS", "EVENT_SCHEMA", "FORMAT", "HEADER_DIGEST_KEY", "HEADER_KEY", "KINDS", "NEWEST_VERSION", "NO_ENV",
    "REQUESTS", "ROOT_SIMULATION", "SCHEMA_VERSION", "SCOPES", "VERSIONS", "WITH_CLEARS_OF_ONE", "WITH_LEAVES",
    "Event", "TraceError", "TraceHeader", "lowest_version",
]  # fmt: skip

FORMAT = "kvcache-trace"
REQUESTS = "kvcache-requests"  # the format of ``kvbench.requests``, which has no events
SCHEMA_VERSION = 1
WITH_CLEARS_OF_ONE, WITH_LEAVES = "1.1", "1.2"
NEWEST_VERSION = WITH_LEAVES
VERSIONS = (SCHEMA_VERSION, WITH_CLEARS_OF_ONE, WITH_LEAVES)
HEADER_KEY = b"kvcache"
HEADER_DIGEST_KEY = b"kvcache.sha256"  # of the header's text; files of kvcache 0.1.0's first days lack it

# The simulation number of the root inference, and the environment of an event that is of no single one.
ROOT_SIMULATION = -1
NO_ENV = -1

LOOKUP, GENERATE, ASSEMBLE, STORE, CLEAR = KINDS = ("lookup", "generate", "assemble", "store", "clear")

# What may stand in ``scope`` beside each kind.
SCOPES: dict[str, tuple[str, ...]] = {
    LOOKUP: ("root", "node"),
    GENERATE: ("root", "node"),
    ASSEMBLE: ("root", "node"),
    STORE: ("init", "recur"),
    CLEAR: ("recur", "init", "all"),
}

_NAMES = pa.dictionary(pa.int8(), pa.string())

# A null stands where a column says nothing about an event's kind.
EVENT_SCHEMA = pa.schema(
    [
        pa.field("kind", _NAMES, nullable=False),  # one of KINDS
        pa.field("scope", _NAMES, nullable=False),  # one of SCOPES[kind]
        pa.field("env", pa.int32(), nullable=False),  # whose row of the batch asks; of a clear NO_ENV or one alone
        pa.field("batch", pa.int64(), nullable=False),  # inference, counted from 0
        pa.field("search", pa.int64(), nullable=False),  # search, counted from 0
        pa.field("simulation", pa.int32(), nullable=False),  # of the search; ROOT_SIMULATION for its root
        pa.field("key", pa.uint64()),  # lookup, generate, store: hash of the latent
        pa.field("parent", pa.uint64()),  # store: key of the context it extends; null starts from nothing
        pa.field("node", pa.int64()),  # lookup: row number of the store whose node is meant; null: never stored
        pa.field("size", pa.int32()),  # assemble: live tokens of the environment's row
        pa.field("tokens", pa.int32()),  # store: tokens that the model appended to the row
        pa.field("hit", pa.bool_()),  # lookup: what the recorded run saw; null in a synthetic trace
        pa.field("depth", pa.int32()),  # lookup, store: steps of the new latent below the root
    ]
)
COLUMNS: tuple[str, ...] = tuple(EVENT_SCHEMA.names)
Event = dict[str, Any]  # by COLUMNS

_LONGEST_FAULT = 400  # characters: a file's own text may be in it

_HEADER_TYPES = {"source": dict, "synthetic": bool, "backend": str | None, "created": str, "recorder": str}


class TraceError(KvbenchError):
    """A trace that cannot be used: which file, in which row (from 0; None where it is in none), and what is wrong."""

    def __init__(self, path: str | Path, fault: str, row: int | None = None) -> None:
        self.path, self.row = Path(path), row
        fault = fault if len(fault) <= _LONGEST_FAULT else f"{fault[:_LONGEST_FAULT]}..."
        super().__init__(clean(f"{path}: {fault}" if row is None else f"{path}: row {row}: {fault}"))


@dataclass(frozen=True)
class TraceHeader:
    """Where a trace comes from and what it was made for."""

    geometry: Geometry  # of the recorded model and search
    source: dict[str, Any]  # library, version, environment, seed, training and packages, as far as they apply
    synthetic: bool  # whether a generator made it, so that no real search stands behind it
    backend: str | None = None  # that the recorded run used; None for a synthetic trace
    pools: dict[str, int] = field(default_factory=dict)  # slots, ``init`` (each) and ``recur``; empty if synthetic
    created: str = ""  # ISO 8601, UTC
    recorder: str = ""  # version of kvcache that wrote it
    schema_version: int | str = SCHEMA_VERSION  # of the columns and of this header; at most NEWEST_VERSION

    @classmethod
    def create(cls, geometry: Geometry, source: dict[str, Any], **others: Any) -> TraceHeader:
        """A header of now, by this version of kvcache."""
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        return cls(geometry, source, created=now, recorder=f"kvcache {__version__}", **others)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    def schema(self) -> pa.Schema:
        """Of a file's events, with this header."""
        text = self.to_json().encode()
        return EVENT_SCHEMA.with_metadata({HEADER_KEY: text, HEADER_DIGEST_KEY: hashlib.sha256(text).hexdigest()})

    @classmethod
    def from_json(cls, text: bytes | str) -> TraceHeader:
        """Raises ValueError, saying what is wrong, for text that is no header of this schema version."""
        values = _header_values(text)
        form = values.pop("format", None) if isinstance(values, dict) else None
        if form == REQUESTS:
            raise ValueError("it has requests of another system, and no search: 'kvbench trace replay' replays it")
        if form != FORMAT:
            raise ValueError(f"the header does not say that this is a {FORMAT}")
        version = values.get("schema_version")
        if isinstance(version, bool) or version not in VERSIONS:
            raise ValueError(
                f"schema version {version!r}, but this kvcache reads versions {SCHEMA_VERSION!r}, "
                f"{WITH_CLEARS_OF_ONE!r} and {WITH_LEAVES!r}: use the kvcache that wrote it, or record it anew"
            )
        names = {each.name for each in fields(cls)}
        missing, unknown = sorted(names - set(values)), sorted(set(values) - names)
        if missing or unknown:
            raise ValueError(f"header fields missing: {missing}, unknown: {unknown}")
        for name, kind in _HEADER_TYPES.items():
            if not isinstance(values[name], kind):
                raise ValueError(f"the header's {name} has the wrong type, {type(values[name]).__name__}")
            if isinstance(values[name], str) and len(values[name]) > NAME_LENGTH:
                raise ValueError(f"the header's {name} is a text of more than {NAME_LENGTH} characters")
        geometry, pools = values.pop("geometry"), values.pop("pools")
        if not isinstance(geometry, dict):
            raise ValueError("the header's geometry is not an object")
        sizes = pools.values() if isinstance(pools, dict) else [None]
        if any(not isinstance(size, int) or isinstance(size, bool) or size < 1 for size in sizes):
            raise ValueError("the header's pools are not an object of positive sizes")
        made = Geometry.from_dict(geometry)
        if not isinstance(made.name, str) or len(made.name) > NAME_LENGTH:
            raise ValueError(f"the geometry's name is no text of at most {NAME_LENGTH} characters")
        fault = out_of_bounds({**geometry, **pools})
        if fault:
            raise ValueError(f"the header's {fault}")
        return cls(made, pools=pools, **values)


def _header_values(text: bytes | str) -> Any:
    """The header's JSON, its texts fit to be shown. Raises ValueError as ``from_json`` does."""
    if len(text) > HEADER_BYTES:
        raise ValueError(f"the header has {len(text):,} bytes: more than the {HEADER_BYTES:,} that are read")
    try:
        values = parse_json(text, constant=str)  # NaN and infinity are no JSON, and no sizes
    except ValueError as error:
        raise ValueError(f"the header is not JSON, or out of bounds: {error}") from None
    if levels_of(values) > LEVELS:
        raise ValueError(f"the header has lists or objects in one another over {LEVELS} levels deep")
    return values


def lowest_version(events: pa.Table) -> int | str:
    """The schema version that a reader of these events must know."""
    is_clear = pc.equal(events["kind"], CLEAR)
    rows = events.select(["batch", "simulation"]).filter(pc.invert(is_clear))
    batches, simulations = (rows[name].to_numpy() for name in ("batch", "simulation"))
    if np.any((np.diff(batches) == 0) & (np.diff(simulations) != 0)):
        return WITH_LEAVES
    of_one = pc.and_(is_clear, pc.not_equal(events["env"], NO_ENV))
    return WITH_CLEARS_OF_ONE if pc.any(of_one).as_py() else SCHEMA_VERSION
