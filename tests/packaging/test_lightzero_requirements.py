"""The environment of LightZero: every version is named, and what kvbench needs beside LightZero is among them."""

import configparser
import shlex
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["lightzero"]


@pytest.fixture(scope="module")
def pins():
    """Name -> version, of the requirements and of what tox installs before them."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    lines = (ROOT / "requirements-lightzero.txt").read_text().splitlines() + tox["testenv:lightzero"]["deps"].split()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


def test_what_lightzero_needs_is_there(pins):
    assert pins["lightzero"] == "0.2.0"
    assert {"di-engine", "gym", "gymnasium", "ale-py", "opencv-python-headless", "swig", "wheel", "torch"} <= set(pins)


def test_no_version_brings_cuda(pins):
    assert not [name for name in pins if name.startswith(("nvidia", "triton"))]


@pytest.mark.parametrize("text", EXTRA)
def test_what_kvbench_needs_is_there(pins, text):
    requirement = Requirement(text)
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_the_guide_installs_what_kvbench_needs():
    guide = (ROOT / "docs" / "lightzero.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in guide.splitlines() if line.startswith('pip install "'))
    assert shlex.split(line)[2:] == EXTRA
