"""A cell in a process of its own: ``python -m kvbench.sweep.child FOLDER``, with the cell's library on the path.

The folder has the cell; its row is written beside it, or the reason why there is none. Nothing is imported before the
library is known to be the right one: an old one may lack what this kvbench drives, and the row says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def _row(content: dict[str, Any]) -> dict[str, Any]:
    import msgspec

    from kvbench.errors import KvbenchError
    from kvbench.gate.build import LIBRARY
    from kvbench.sweep.cells import Cell
    from kvbench.sweep.libraries import folder_of
    from kvbench.sweep.measure import measured_row

    used = folder_of(LIBRARY)
    if not used.is_relative_to(content["library"]):
        raise KvbenchError(f"{used} was imported, and not the library in {content['library']}")
    return measured_row(msgspec.convert(content["cell"], Cell), Path(content["trace"]))


def main(folder: Path) -> None:
    """Compute the cell of a folder."""
    content = json.loads((folder / "cell.json").read_bytes())
    try:
        row = _row(content)
    except ImportError as error:
        row = {"reason": f"this kvbench cannot drive that library: {str(error).partition(' (')[0]}"}  # no path
    beside = folder / "unfinished"
    beside.write_text(json.dumps(row))
    beside.rename(folder / "row.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
