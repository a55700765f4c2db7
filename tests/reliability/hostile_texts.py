"""Texts that a file, a folder or a command line may hold, and that something on their way would obey."""

from __future__ import annotations

__all__ = ["HOSTILE", "NAMES", "UNSEEN", "is_shown_as_it_is"]

HOSTILE = {
    "closing-tag": "[/data/x]",
    "list": "[a, b]",
    "tuple": "(1, 2)",
    "tag": "[red]x[/red]",
    "environment": "job[py311]",
    "escaped-tag": "\\[bold]x",
    "link": "[link=http://x]y[/link]",
    "emoji-name": ":smile:",
    "colour": "\x1b[31mred",
    "title": "\x1b]0;title\x07",
    "c1": "\x9b31mred",
    "newline": "a\nb",
    "return": "a\rb",
    "tab": "a\tb",
    "override": "\u202eabc",
    "isolate": "\u2067abc",
    "line-separator": "a\u2028b",
    "invisible": "a\u200bb",
    "surrogate": "a\ud800b",
    "byte": "a\udcffb",
    "equals": "=1+1",
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-1+1",
    "at": "@SUM(A1)",
    "wide": "＝1+1",  # noqa: RUF001
    "formula": "$x^2$",
    "template": "{{7*7}}{% raw %}",
    "format": "{0} {name} %s %n",
    "script": "<script>alert(1)</script>",
    "attribute": "\"><img src=x onerror=alert(1)>",
    "end-of-script": "</script><b>",
    "comment": "--><!--",
    "table": "a|b",
    "code": "`x`",
    "address": "[x](http://x)",
    "quote": "it's \"so\"",
    "pairs": "x, y=z",
    "path": "../../etc/passwd",
    "letters": "é😀漢",
    "long": "x" * 300,
    "blank": " ",
}  # fmt: skip

# What may be in a file's name; no bytes are a lone surrogate, but for those that stand for a byte (PEP 383).
NAMES = {
    kind: text
    for kind, text in HOSTILE.items()
    if ".." not in text and "//" not in text and len(text) < 200 and "\ud800" not in text
}

UNSEEN = [chr(code) for code in (*range(32), 127, *range(128, 160)) if chr(code) != "\n"]
UNSEEN += ["\u200b", "\u2028", "\u202e", "\u2067", "\ud800", "\udcff"]


def is_shown_as_it_is(output: str) -> bool:
    """Whether nothing in it is obeyed by a terminal, or hides."""
    return not any(each in output for each in UNSEEN)
