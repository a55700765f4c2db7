"""Puts Pong's ROM where LightZero 0.2.0 looks for it: ``python benchmarks/lightzero_roms.py``.

LightZero needs ale-py 0.8.1, which came without most ROMs. Later wheels of ale-py have them: pip downloads one, and the
one file is taken out of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

WHEEL = "ale-py==0.10.1"
ROMS = ("pong.bin",)


def roms_folder() -> Path:
    """Where the installed ale-py looks for ROMs.

    Raises:
        SystemExit: there is no ale-py.
    """
    found = importlib.util.find_spec("ale_py")
    if found is None or found.origin is None:
        raise SystemExit("ale-py is not installed: pip install --no-deps -r requirements-lightzero.txt")
    return Path(found.origin).parent / "roms"


def take(wheel: Path, names: list[str], folder: Path) -> None:
    """Copy ROMs from a wheel of ale-py, if they are those that the older one expects.

    Args:
        wheel: a file.
        names: of the ROMs.
        folder: of the older ale-py, with its ``md5.txt``.

    Raises:
        SystemExit: a ROM has another checksum.
    """
    lines = (line.split() for line in (folder / "md5.txt").read_text().splitlines())
    expected = {line[1]: line[0] for line in lines if len(line) == 2}
    with zipfile.ZipFile(wheel) as file:
        for name in names:
            content = file.read(f"ale_py/roms/{name}")
            if hashlib.md5(content).hexdigest() != expected[name]:
                raise SystemExit(f"{wheel.name} has another {name} than {folder} expects")
            (folder / name).write_bytes(content)


def main() -> None:
    folder = roms_folder()
    names = [name for name in ROMS if not (folder / name).exists()]
    if not names:
        return
    with TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--dest", downloads, WHEEL], check=True)
        take(next(Path(downloads).glob("*.whl")), names, folder)
    print(f"{', '.join(names)} of {WHEEL}: in {folder}")


if __name__ == "__main__":
    main()
