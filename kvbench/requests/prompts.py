"""Prompts as hashes of their blocks: the JSON lines that Mooncake and Qwen-Bailian publish.

Each line is one prompt. Its ``hash_ids`` name the blocks of its tokens, in order; prompts with the same first blocks
have the same first ids. A block is a request, and its parent is the block before.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa

from kvbench.requests.schema import LARGEST_KEY, ROW_GROUP_ROWS
from kvbench.requests.source import SourceFile, batch_of
from kvbench.text import clean

__all__ = ["BAILIAN", "MOONCAKE", "Prompts"]

_LATEST = 10**12  # of a timestamp, in either unit


class _Prompt(msgspec.Struct):
    """The fields that are used of a line; others may be there."""

    timestamp: Annotated[float, msgspec.Meta(ge=0, le=_LATEST)]
    input_length: Annotated[int, msgspec.Meta(ge=0, le=2**48)]
    hash_ids: list[int]
    chat_id: int | None = None


@dataclass(frozen=True)
class Prompts:
    """One of the formats.

    Attributes:
        block_tokens: tokens of a block; a prompt's last one may have fewer.
        time_unit: us in one unit of ``timestamp``.
        has_chats: whether each line has a ``chat_id``: it tells the formats apart.
    """

    block_tokens: int
    time_unit: int
    has_chats: bool

    def read(self, source: SourceFile) -> Iterator[pa.RecordBatch]:
        """The requests of a file. Raises SourceError, with the line, for the first one that is no prompt."""
        decode = msgspec.json.Decoder(_Prompt).decode
        rows = _Rows()
        for first, lines in source.lines():
            for number, line in enumerate(lines, first):
                if line and not line.isspace():
                    try:
                        rows.add(number - 1, self._checked(decode(line)), self)
                    except (ValueError, OverflowError, RecursionError) as error:
                        raise source.fault(f"line {number}", _told(error)) from None
            source.odd_lengths = rows.odd_lengths
            if len(rows.keys) >= ROW_GROUP_ROWS:
                yield from rows.taken()
        yield from rows.taken()

    def _checked(self, prompt: _Prompt) -> _Prompt:
        if (prompt.chat_id is not None) != self.has_chats:
            other = "bailian" if prompt.chat_id is not None else "mooncake"
            has = "a chat_id" if prompt.chat_id is not None else "no chat_id"
            raise ValueError(f"it has {has}: give --format {other}")
        return prompt


class _Rows:
    """Requests that are not handed on yet, as columns."""

    def __init__(self) -> None:
        self.odd_lengths = 0
        self._begin()

    def _begin(self) -> None:
        self.times, self.sizes, self.records = array("q"), array("q"), array("q")
        self.keys = array("Q")

    def add(self, record: int, prompt: _Prompt, form: Prompts) -> None:
        """The blocks of one prompt. Raises OverflowError for an id that is no 64-bit key."""
        keys = array("Q", prompt.hash_ids)
        if not keys:
            return
        last = prompt.input_length - (len(keys) - 1) * form.block_tokens
        if not 0 < last <= form.block_tokens:
            self.odd_lengths += 1
            last = form.block_tokens
        self.keys.extend(keys)
        self.times.extend([round(prompt.timestamp * form.time_unit)] * len(keys))
        self.sizes.extend([form.block_tokens] * (len(keys) - 1))
        self.sizes.append(last)
        self.records.extend([record] * len(keys))

    def taken(self) -> Iterator[pa.RecordBatch]:
        """All of them, as batches; none are left."""
        if self.keys:
            keys, records = np.array(self.keys), np.array(self.records)
            is_first = np.diff(records, prepend=-1) > 0
            parents = np.roll(keys, 1), is_first
            yield from batch_of((np.array(self.times), keys, np.array(self.sizes), records), parents)
            self._begin()


def _told(error: Exception) -> str:
    """What is wrong with a line, in one."""
    if isinstance(error, OverflowError):
        return f"a hash id is not from 0 to {LARGEST_KEY:,}"
    if isinstance(error, RecursionError):
        return "nested too deep"
    return str(clean(str(error))).replace("`", "")


MOONCAKE = Prompts(block_tokens=512, time_unit=1_000, has_chats=False)
BAILIAN = Prompts(block_tokens=16, time_unit=1_000_000, has_chats=True)
