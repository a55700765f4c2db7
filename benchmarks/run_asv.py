"""asv over this repository's history, under a name for the machine. It measures; it does not compare two commits.

Usage: python benchmarks/run_asv.py [OPTIONS OF "asv run"] [COMMITS] | publish | show COMMIT

``ASV_MACHINE`` is the machine's name, where its own means nothing. Needs asv alone.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["asv_command", "machine_name"]

# On identical code, one process a side: "compare" called 41 of 110 values worse, "continuous" found up to 7.75 times.
REFUSED = ("compare", "continuous")
REFUSAL = """\
'asv {0}' is not offered: it has one process a side, and calls much of identical code worse.
  kvbench gate --base COMMIT              is the working tree worse than a commit?
  kvbench bisect METRIC GOOD BAD          which commit made it worse?
  kvbench results --benchmark over_legacy times over legacy's, commit by commit"""
EXIT_REFUSED = 2


def machine_name() -> str:
    """What results of this machine are filed under."""
    return os.environ.get("ASV_MACHINE") or platform.node()


def asv_command(arguments: Sequence[str]) -> list[str]:
    """The command for what was asked: a command of asv, or else arguments of "asv run"."""
    command = arguments[0] if arguments else "run"
    if command == "publish":
        return ["asv", *arguments]
    if command == "show":
        return ["asv", "show", "--machine", machine_name(), *arguments[1:]]
    return ["asv", "run", "--machine", machine_name(), *(arguments or ["HEAD^!"])]


def main(arguments: Sequence[str]) -> int:
    """Run asv; its exit code."""
    if arguments and arguments[0] in REFUSED:
        print(REFUSAL.format(arguments[0]), file=sys.stderr)
        return EXIT_REFUSED
    for command in (["asv", "machine", "--yes", "--machine", machine_name()], asv_command(arguments)):
        code = subprocess.run(command, check=False).returncode
        if code:
            break
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
