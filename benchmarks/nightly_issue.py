"""One issue for what a night found: it is opened, or updated where it is open already. Nothing found, nothing done.

Usage: python benchmarks/nightly_issue.py ALARM.md [--link URL] [--summary FILE]

Needs GitHub's ``gh``, and in ``GH_TOKEN`` the right to write issues. A comment tells those who watch the issue of rows
that its text did not have: an edit alone notifies nobody. Numbers move a little with each commit that is measured, and
are not told again. What a closed issue has is mended or meant: it opens no other.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["tell"]

LABEL = "nightly-regression"
TITLE = "The nightly history found regressions"
MOST_CLOSED = 30  # closed issues that are looked at, the latest first
LONGEST = 60_000  # characters: GitHub takes 65,536
HEADINGS = ("| commit | metric | parameters | how much | machine | subject |", "|-|-|-|-|-|-|")  # kvbench report's
COLUMNS = 6
FOOT = (
    "Written by `benchmarks/nightly_issue.py`. Close it when all of it is mended or meant. "
    "What is found after that and is not in it opens another."
)


def tell(text: str, link: str) -> str:
    """Open or update the issue; what was done. Raises CalledProcessError: ``gh`` failed."""
    if len(text) > LONGEST:
        text = text[:LONGEST].rpartition("\n")[0] + "\n\nThere is more: see the report."
    # Subjects of commits shall notify nobody, and link no other issue.
    whole = "\n\n".join([re.sub(r"@(?=\w)|#(?=\d)", r"\g<0><!-- -->", text.strip()), FOOT])
    _gh("label", "create", LABEL, "--force", "--color", "B60205", "--description", "Found by the nightly history")
    found = _issues("open", 1)
    if not found:
        known = {row for each in _issues("closed", MOST_CLOSED) for row in _rows(each["body"])}
        if _rows(whole) and known.issuperset(_rows(whole)):
            return "a closed issue says all of it: it is mended or meant"
        return f"opened {_gh('issue', 'create', '--title', TITLE, '--label', LABEL, '--body-file', '-', text=whole)}"
    number, body = str(found[0]["number"]), found[0]["body"]
    if _lines(body) == _lines(whole):
        return f"issue {number} says all of it already"
    _gh("issue", "edit", number, "--body-file", "-", text=whole)
    known = _rows(body)
    new = [line for row, line in _rows(whole).items() if row not in known]
    if new:
        comment = "\n".join(["This night found more.", "", *HEADINGS, *new, "", link])
        _gh("issue", "comment", number, "--body-file", "-", text=comment)
    return f"updated issue {number}"


def _issues(state: str, most: int) -> list[dict[str, Any]]:
    asked = ("--state", state, "--label", LABEL, "--limit", str(most), "--json", "number,body")
    return list(json.loads(_gh("issue", "list", *asked)))


def _lines(text: str) -> list[str]:
    """Lines of a text; GitHub gives them back with ends of its own."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _rows(text: str) -> dict[tuple[str, str, str], str]:
    """Rows of its table, by what stays the same from night to night: commit, metric and machine."""
    rows = {}
    for line in _lines(text):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) == COLUMNS + 2 and not set(cells[1]) <= {"-"} and line not in HEADINGS:
            rows[cells[1], cells[2], cells[5]] = line
    return rows


def _gh(*arguments: str, text: str = "") -> str:
    command = ["gh", *arguments]
    return subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> int:
    """Read the file and tell of it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alarm", type=Path, help="what was found, as Markdown; no file or an empty one is nothing")
    parser.add_argument("--link", default="", help="the run's page, for the comment")
    parser.add_argument("--summary", type=Path, help="append what was found here as well")
    given = parser.parse_args()
    try:
        text = given.alarm.read_text()
    except FileNotFoundError:
        text = ""
    if not text.strip():
        print("nothing is new")
        return 0
    if given.summary:
        with given.summary.open("a") as file:
            file.write(text)
    try:
        print(tell(text, given.link))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"the issue could not be written: {error}\n\n{text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
