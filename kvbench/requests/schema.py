"""What a file of requests holds: a key and a size each, and where they come from. There is no tree of contexts in it.

A file is Parquet, as traces of searches are, with a header in JSON in its metadata. A row is one request for one key.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pyarrow as pa

from kvbench.parse import parse_json
from kvbench.trace.limits import HEADER_BYTES
from kvbench.trace.schema import HEADER_DIGEST_KEY, HEADER_KEY, REQUESTS
from kvcache import __version__

__all__ = [
    "COLUMNS", "FORMAT", "LARGEST_KEY", "LARGEST_SIZE", "LARGEST_TIME", "REQUEST_SCHEMA", "ROW_GROUP_ROWS",
    "SCHEMA_VERSION", "RequestHeader", "SizeUnit",
]  # fmt: skip

FORMAT = REQUESTS
SCHEMA_VERSION = 1
ROW_GROUP_ROWS = 65_536
LARGEST_KEY = 2**64 - 1
LARGEST_SIZE = 2**48
LARGEST_TIME = 2**62  # us

SizeUnit = Literal["tokens", "bytes", "entries"]

REQUEST_SCHEMA = pa.schema(
    [
        pa.field("time", pa.int64()),  # us, from the source's own zero; null: the source has no times
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),  # of the entry, in the header's unit; 1 or more
        pa.field("parent", pa.uint64()),  # key of the block before, of a prompt's blocks; null: first, or not known
        pa.field("record", pa.int64(), nullable=False),  # of the source, from 0; the blocks of one prompt share one
    ]
)
COLUMNS: tuple[str, ...] = tuple(REQUEST_SCHEMA.names)


class RequestHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where requests come from.

    Attributes:
        source_format: a name out of ``kvbench.requests.formats.FORMATS``.
        file: the source's name, without its folder.
        sha256: of the source's bytes, as they were given: compressed, where they are.
        license: what whoever imported it says of it; None where nothing was said.
        size_unit: of the sizes; ``entries`` where the source has no sizes and each is 1.
        hashed_keys: whether the source's keys are texts, so that the keys here are their xxh64.
        settings: how the source was read, where the format leaves that open.
        created: ISO 8601, UTC.
        recorder: version of kvcache that wrote the file.
    """

    format: Literal["kvcache-requests"] = "kvcache-requests"
    schema_version: Literal[1] = 1
    source_format: str
    file: str
    sha256: str
    license: str | None
    size_unit: SizeUnit
    hashed_keys: bool = False
    settings: dict[str, str | int | bool | None] = {}
    created: str = ""
    recorder: str = ""

    @classmethod
    def create(cls, **values: Any) -> RequestHeader:
        """A header of now, by this version of kvcache."""
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        return cls(created=now, recorder=f"kvcache {__version__}", **values)

    def schema(self) -> pa.Schema:
        """Of a file's requests, with this header."""
        text = msgspec.json.encode(self)
        return REQUEST_SCHEMA.with_metadata({HEADER_KEY: text, HEADER_DIGEST_KEY: hashlib.sha256(text).hexdigest()})

    @classmethod
    def from_json(cls, text: bytes) -> RequestHeader:
        """Raises ValueError, saying what is wrong, for text that is no header of this version."""
        if len(text) > HEADER_BYTES:
            raise ValueError(f"the header has {len(text):,} bytes: more than the {HEADER_BYTES:,} that are read")
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ValueError(f"the header is not JSON, or out of bounds: {error}") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("the header does not say that these are requests: give what 'kvbench trace import' wrote")
        if values.get("schema_version") != SCHEMA_VERSION:
            version = values.get("schema_version")
            raise ValueError(f"schema version {version!r:.40}, but this kvcache reads version 1: import it anew")
        try:
            return msgspec.convert(values, cls)
        except ValueError as error:
            raise ValueError(f"the header is not one of requests: {str(error).replace('`', '')}") from None
