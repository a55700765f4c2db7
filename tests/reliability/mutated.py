"""Files that others wrote, mutated: a field replaced, removed or renamed, or the bytes themselves."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st
from reliability.hostile_texts import HOSTILE

__all__ = ["hostile_texts", "mutated_bytes", "mutated_json"]

hostile_texts = st.one_of(st.sampled_from(list(HOSTILE.values())), st.text(max_size=20))
_NUMBERS = st.sampled_from([0, -1, 1, 7, 10**6, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -1e-300, 1e308])
_NO_NUMBERS = st.sampled_from([float("nan"), float("inf"), -float("inf")])
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _NO_NUMBERS, hostile_texts)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(hostile_texts, inner, max_size=4)),
    max_leaves=8,
)
_DEEP = st.sampled_from([60, 70, 900, 5000]).map(lambda depth: "[" * depth + "]" * depth)


@st.composite
def mutated_json(draw: st.DrawFn, base: Any) -> bytes:
    """The content with one to three edits, then now and then with some of its bytes."""
    content = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 3))):
        content = _edited(draw, content)
    text = json.dumps(content)
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(_DEEP) + text[place:]
    encoded = text.encode()
    return draw(mutated_bytes(encoded)) if draw(st.integers(0, 4)) == 0 else encoded


def _edited(draw: st.DrawFn, content: Any) -> Any:
    containers = [content] if isinstance(content, dict | list) else []
    for each in containers:  # grows
        children = each.values() if isinstance(each, dict) else each
        containers += [child for child in children if isinstance(child, dict | list)]
    containers = [each for each in containers if each]
    if not containers:
        return draw(_VALUES)
    inner = draw(st.sampled_from(containers))
    place = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
    what = draw(st.sampled_from(["replace", "replace", "remove", "twice", "rename"]))
    if what == "replace":
        inner[place] = draw(_VALUES)
    elif what == "remove":
        del inner[place]
    elif isinstance(inner, list):
        inner.append(copy.deepcopy(inner[place]))
    else:
        value = inner[place] if what == "twice" else inner.pop(place)
        inner[draw(hostile_texts)] = value
    return content


@st.composite
def mutated_bytes(draw: st.DrawFn, base: bytes) -> bytes:
    """Bytes cut off, put in, changed or repeated."""
    content = base
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 1, 2, 8, 100])))
        middle = draw(
            st.sampled_from([b"", b"\x00", b"\xff", b'"', b"{", b"9" * 30, b"\xef\xbb\xbf", content[start:end] * 2])
        )
        content = content[:start] + middle + content[end:]
        if draw(st.integers(0, 5)) == 0:
            content = content[: draw(st.integers(0, len(content)))]
    return content
