"""Traces that nobody recorded: absurd numbers, damaged descriptions, files that are small and hold a lot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from traces import TINY, batch_of, event, good_events, header, spoilt, write_events, write_table

from kvbench.trace.schema import HEADER_KEY, NO_ENV

Make = Callable[[Path], Path]


def with_header(text: str | bytes, events: list[dict[str, Any]] | None = None) -> Make:
    encoded = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return lambda path: write_events(path, good_events() if events is None else events, {HEADER_KEY: encoded})


def header_of(**values: Any) -> str:
    return json.dumps(json.loads(header().to_json()) | values)


def geometry_of(**values: Any) -> Make:
    return with_header(header_of(geometry=TINY.to_dict() | values))


def deep(levels: int) -> Make:
    return with_header(header_of(source={"in": "DEEP"}).replace('"DEEP"', "[" * levels + "]" * levels))


def table_with(change: Callable[[pa.Table], pa.Table]) -> Make:
    return lambda path: write_table(path, change(pa.Table.from_batches([batch_of(good_events())])))


def typed(name: str, kind: pa.DataType) -> Make:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, pa.nulls(table.num_rows, kind))

    return table_with(change)


def many_rows(rows: int, group: int = 1 << 20) -> Make:
    """One event, as often as that: it takes next to nothing in the file."""

    def make(path: Path) -> Path:
        table = pa.Table.from_batches([batch_of([event("clear", "all", NO_ENV, 0, -1)])])
        table = table.take(pa.array([0] * rows)).replace_schema_metadata({HEADER_KEY: header().to_json().encode()})
        pq.write_table(table, path, group, compression="zstd")
        return path

    return make


def many_groups(groups: int) -> Make:
    def make(path: Path) -> Path:
        table = pa.Table.from_batches([batch_of([event("clear", "all", NO_ENV, each, -1) for each in range(groups)])])
        pq.write_table(table.replace_schema_metadata({HEADER_KEY: header().to_json().encode()}), path, 1)
        return path

    return make


def long_name(length: int) -> Make:
    """A text of one letter in the column ``kind``: hundreds of megabytes are a few kilobytes when compressed."""

    def make(path: Path) -> Path:
        table = pa.Table.from_batches([batch_of(good_events())])
        kinds = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int8()), ["x" * length])
        metadata = {HEADER_KEY: header().to_json().encode()}
        changed = table.set_column(0, "kind", kinds).replace_schema_metadata(metadata)
        pq.write_table(changed, path, compression="zstd", use_dictionary=["scope"], write_statistics=False)
        return path

    return make


def lying(make: Make) -> Make:
    """The same file, whose footer says that nothing in it is larger than 100 bytes when it is decoded."""

    def number(value: int, length: int = 0) -> bytes:
        value <<= 1
        octets = [value >> 7 * place & 127 for place in range(max(length, -(-value.bit_length() // 7)))]
        return bytes([each | 128 for each in octets[:-1]] + octets[-1:])

    def changed(path: Path) -> Path:
        whole = make(path).read_bytes()
        about = pq.ParquetFile(path).metadata.row_group(0)
        start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
        footer = whole[start:]
        for size in (about.total_byte_size, about.column(0).total_uncompressed_size):
            footer = footer.replace(number(size), number(100, len(number(size))))
        path.write_bytes(whole[:start] + footer)
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 100
        return path

    return changed


def footer_of(size: int) -> Make:
    def make(path: Path) -> Path:
        whole = write_events(path, good_events()).read_bytes()
        path.write_bytes(whole[:-8] + size.to_bytes(4, "little") + whole[-4:])
        return path

    return make


SIZES = ("num_layers", "num_heads", "embed_dim", "context_length", "env_num", "num_simulations")
EVENTS_OUT_OF_BOUNDS = {
    "env": (5, 2**31 - 1), "batch": (16, 2**62), "search": (16, 2**62), "simulation": (16, 2**31 - 1),
    "depth": (16, 2**31 - 1), "size": (15, 2**31 - 1), "tokens": (16, 2**31 - 1), "node": (12, 2**62),
}  # fmt: skip

# What neither ``kvbench trace check`` nor any reader takes for a trace.
UNSOUND: dict[str, Make] = {
    **{f"{name} 10^9": geometry_of(**{name: 10**9}) for name in SIZES},
    **{f"{name} -1": geometry_of(**{name: -1}) for name in SIZES},
    **{f"{name} 10^400": geometry_of(**{name: 10**400}) for name in SIZES},
    "embed_dim 10^6": geometry_of(embed_dim=10**6),
    "env_num 8.0": geometry_of(env_num=8.0),
    "env_num NaN": geometry_of(env_num=float("nan")),
    "env_num infinite": geometry_of(env_num=float("inf")),
    "env_num true": geometry_of(env_num=True),
    "env_num a text": geometry_of(env_num="2"),
    "env_num null": geometry_of(env_num=None),
    "env_num a list": geometry_of(env_num=[2]),
    "positions a list": geometry_of(positions=["rotary"]),
    "name a number": geometry_of(name=7),
    "name long": geometry_of(name="x" * 10**6),
    "name long and short of a field": with_header(header_of(geometry={"name": "x" * 10**6})),
    "pools 10^18": with_header(header_of(pools={"init": 10**18, "recur": 1})),
    "pools negative": with_header(header_of(pools={"init": -1})),
    "pools NaN": with_header(header_of(pools={"init": float("nan")})),
    "backend long": with_header(header_of(backend="x" * 10**6)),
    "created long": with_header(header_of(created="9" * 10**6)),
    "field long": with_header(header_of(**{"x" * 10**6: 1})),
    "header large": with_header(header_of(source={"x": "x" * 2**21})),
    "header deep": deep(1_000),
    "header very deep": deep(100_000),
    "header not closed": with_header("[" * 100_000),
    "header a long number": with_header("1" * 100_000),
    "header NaN": with_header("NaN"),
    "header without text": with_header(b""),
    "header of no text": with_header(b"\xff\xfe\x00"),
    "version huge": with_header(header_of(schema_version=10**400)),
    "version a list": with_header(header_of(schema_version=[1])),
    **{f"event {name}": with_header(header_of(), spoilt(row, **{name: value}))
       for name, (row, value) in EVENTS_OUT_OF_BOUNDS.items()},
    **{f"event {name} negative": with_header(header_of(), spoilt(row, **{name: -2}))
       for name, (row, _) in EVENTS_OUT_OF_BOUNDS.items()},
    **{f"event {name} null": with_header(header_of(), spoilt(9, **{name: None}))
       for name in ("kind", "scope", "env", "batch", "search", "simulation", "key", "tokens")},
    "no events": with_header(header_of(), []),
    "no columns": table_with(lambda table: table.select([])),
    "column missing": table_with(lambda table: table.drop_columns(["key"])),
    "column twice": table_with(lambda table: table.append_column("key", table.column("key"))),
    "column of texts": typed("env", pa.string()),
    "column of reals": typed("key", pa.float64()),
    "column of lists": typed("key", pa.list_(pa.uint64())),
    "column of objects": typed("key", pa.struct([("key", pa.uint64())])),
    "kind of plain texts": typed("kind", pa.string()),
    "kind long": with_header(header_of(), spoilt(5, kind="x" * 10**6)),
    "kind of two lines": with_header(header_of(), spoilt(5, kind="a\nb\x1b[31m")),
    "clear of one in version 1": with_header(header_of(), [*good_events(), event("clear", "init", 1, 2, 1)]),
    "footer of 2 GB": footer_of(2**31),
    "footer longer than the file": footer_of(2**23),
    "a million rows in little": many_rows(10**6),
    "a name of 5 MB in little": long_name(5 * 10**6),
    "a name of 5 MB in little, and a footer that lies": lying(long_name(5 * 10**6)),
    "clears without end": many_rows(5_000),
}  # fmt: skip

# Sound, but for no machine: a replay needs more than is there.
TOO_LARGE: dict[str, Make] = {
    "env_num": geometry_of(env_num=65_536, num_simulations=2**20),
    "embed_dim": geometry_of(embed_dim=65_536, num_layers=1024, context_length=65_536),
    "context_length": geometry_of(context_length=65_536, num_layers=1024, embed_dim=16_384),
}

# Strange, and sound.
STRANGE: dict[str, Make] = {
    "surrogates": with_header(
        header_of(backend="\ud800", source={"\udfff": ["\ud800"]}, geometry=TINY.to_dict() | {"name": "\ud83d"})
    ),
    "control characters": with_header(
        header_of(backend="\x1b[31m\n\x00", geometry=TINY.to_dict() | {"name": "[/red]\n"})
    ),
    "NaN in the source": with_header(header_of(source={"mean": float("nan"), "most": float("inf")})),
    "columns in another order": table_with(lambda table: table.select(table.column_names[::-1])),
    "a further column": table_with(lambda table: table.append_column("z", pa.array([["x"]] * table.num_rows))),
    "as deep as it may be": deep(30),
    "context 3": with_header(header_of(geometry=TINY.to_dict() | {"context_length": 3}), good_events()[:11]),
}  # fmt: skip


def made(folder: Path, traces: dict[str, Make]) -> Iterator[tuple[str, Path]]:
    for number, (name, make) in enumerate(traces.items()):
        yield name, make(folder / f"{number}.parquet")
