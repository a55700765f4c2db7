"""The examples run, are short, and print what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRINTS = {
    "record_and_replay.py": [
        "legacy, 20 recurrent slots",
        "new, 20 recurrent slots",
        "stale hit",
        "recur=20: legacy returns another state's",
    ],
    "store_and_find.py": ["state 0: evicted", "state 1: 1.0", "state 2: 2.0", "'evictions': 1"],
    "switch_a_model.py": ["legacy: ", "new: ", "the same visits in 5 searches: True"],
}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_an_example_prints_what_it_promises(name):
    ran = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for promised in PRINTS[name]:
        assert promised in ran.stdout
    assert len((EXAMPLES / name).read_text().splitlines()) < 60
