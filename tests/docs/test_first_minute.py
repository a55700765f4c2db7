"""README's blocks run in order in a fresh clone, as they stand, and leave it clean. ``tox -e readme`` runs all."""

import shutil
import subprocess
import sys

import pytest
from document_blocks import NOT_RUN, ROOT, SLOW, blocks_of, clone, run

PROGRAMS = {
    "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    "kvbench": f"#!{sys.executable}\nfrom kvbench.__main__ import main\nmain()\n",
    # What it would install is there.
    "pip": '#!/bin/sh\ntest "$1" = install && test -f constraints.txt && test -f pyproject.toml\n',
}
README = blocks_of(ROOT / "README.md")


@pytest.fixture
def programs(tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in PROGRAMS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no repository to clone")
def test_readmes_commands_run_in_a_fresh_clone(tmp_path, programs):
    folder = tmp_path / "clone"
    clone(folder)
    shutil.copy(ROOT / ".gitignore", folder)
    cheap = [each for each in README if each.is_run and SLOW not in each.info]
    printed = [text for _, text in run(cheap, folder, programs)]
    exact = printed[0].rstrip().rpartition("\n")[2]  # of counts, which are the same on any machine
    assert exact.startswith("recur=50: ")
    assert exact in " ".join((ROOT / "README.md").read_text().replace("\n> ", " ").split())
    assert (folder / "replay.png").read_bytes().startswith(b"\x89PNG")
    status = subprocess.run(
        ["git", "status", "--porcelain", "--", ":!.gitignore"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert status.stdout == "", "what README's commands write is in nobody's way"


def test_a_block_that_fails_is_told_with_its_output(tmp_path, programs):
    block = next(each for each in README if each.language == "sh")
    broken = type(block)("README.md", "sh", "", "echo this; false; echo never")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        list(run([broken], tmp_path, programs))
    assert failed.value.stdout == "this\n"


def test_readme_begins_with_the_first_minute():
    first = next(each for each in README if each.language == "sh")
    install, *commands = first.text.replace("\\\n", " ").splitlines()
    assert install.startswith("pip install -c constraints.txt")
    assert ["--searches" in each and "--picture" in each for each in commands] == [True]
    assert {each.info for each in README} <= {"", SLOW, NOT_RUN}
