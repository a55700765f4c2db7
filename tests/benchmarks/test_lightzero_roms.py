"""Taking a ROM out of a wheel: the right file, or an error that names it."""

import hashlib
import zipfile

import lightzero_roms
import pytest


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "ale_py.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ale_py/roms/pong.bin", b"pong")
    return path


def folder_that_expects(tmp_path, content):
    folder = tmp_path / "roms"
    folder.mkdir()
    (folder / "md5.txt").write_text(f"# checksums of .bin\n\n{hashlib.md5(content).hexdigest()} pong.bin\n")
    return folder


def test_a_rom_is_copied(tmp_path, wheel):
    folder = folder_that_expects(tmp_path, b"pong")
    lightzero_roms.take(wheel, ["pong.bin"], folder)
    assert (folder / "pong.bin").read_bytes() == b"pong"


def test_another_rom_is_refused(tmp_path, wheel):
    folder = folder_that_expects(tmp_path, b"tennis")
    with pytest.raises(SystemExit, match=r"another pong\.bin"):
        lightzero_roms.take(wheel, ["pong.bin"], folder)
    assert not (folder / "pong.bin").exists()
