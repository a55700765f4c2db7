"""Counts the prose of README and docs: ``python docs/prose.py`` prints sentences, their words, and README's words.

Tables, code, headings and links' addresses are no prose.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median, quantiles

__all__ = ["README_WORDS", "documents", "prose_of", "sentences", "words"]

ROOT = Path(__file__).resolve().parents[1]
README_WORDS = 700

_CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_NO_PROSE = re.compile(r"^\s*(\||#|:::|!\[|\[!\[|options:|members:|- [A-Z]\w+$).*$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z`*\"(])")


def documents() -> list[Path]:
    """README and every page of docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def prose_of(text: str) -> str:
    """The text without code, tables, headings and the addresses of links."""
    return _LINK.sub(r"\1", _NO_PROSE.sub("", _CODE.sub("", text)))


def sentences(text: str) -> list[str]:
    """Sentences of a document; a list item is one at least."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", prose_of(text))
    found = []
    for block in blocks:
        flat = re.sub(r"^(?:[-*]|\d+\.) ", "", " ".join(block.split()))
        found += [sentence for sentence in _END.split(flat) if words(sentence)]
    return found


def words(text: str) -> int:
    """Words of a text: what has a letter or a digit."""
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def main() -> None:
    print(f"{'document':28} sentences  median  90 %  longest")
    for path in documents():
        counts = [words(each) for each in sentences(path.read_text())]
        if len(counts) > 1:
            ninth = quantiles(counts, n=10)[-1]
            print(f"{path.relative_to(ROOT)!s:28} {len(counts):9} {median(counts):7g} {ninth:5.0f} {max(counts):8}")
    readme = (ROOT / "README.md").read_text()
    print(f"README: {words(_CODE.sub('', readme))} words without its code, {words(readme)} with it")


if __name__ == "__main__":
    main()
