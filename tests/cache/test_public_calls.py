"""Every public call refuses what it cannot serve, by an error with a name, and the same under ``python -O``."""

import subprocess
import sys
from pathlib import Path

import bad_calls
import pytest
from bad_calls import BACKENDS, NUMPY_INTEGERS, OF_BACKENDS, OF_MANAGERS, OTHERS


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", [*OF_BACKENDS, *OF_MANAGERS])
def test_a_bad_call_of_a_backend(backend, what):
    if backend == "legacy" and what in OF_MANAGERS:
        return  # LightZero's code has neither the check nor the call
    error, words, call = {**OF_BACKENDS, **OF_MANAGERS}[what]
    with pytest.raises(error) as caught:
        call(backend)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", OTHERS)
def test_another_bad_call(what):
    error, words, call = OTHERS[what]
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", NUMPY_INTEGERS)
def test_integers_of_numpy(backend, what):
    NUMPY_INTEGERS[what](backend)


def test_without_asserts_everything_is_the_same():
    """A history's contents, and the error of every bad call."""
    ended = [
        subprocess.run(
            [sys.executable, *options, bad_calls.__file__],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for options in ([], ["-O"])
    ]
    assert [lines[0] for lines in ended] == ["True", "False"]
    assert ended[0][1:] == ended[1][1:]
    assert len(ended[0]) > 200
