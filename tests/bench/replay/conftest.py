"""Traces that several of these tests replay."""

import pytest
from traces import TINY, steps_of

from kvbench.record.fills import FilledSearch
from kvbench.record.synthetic import write_synthetic_trace


@pytest.fixture
def filled_steps(tmp_path):
    """Two searches of windows that slide, and the step that ends the second one."""
    path = tmp_path / "filled"
    list(write_synthetic_trace(path, FilledSearch(TINY, 2, 0, fill="sliding")))
    return steps_of(path)
