"""Gathers against a copy: what is timed moves as many bytes, and the table is printed."""

import sys

import gathers
import pytest
import torch

from kvbench.measure.counters import OperationCounter
from kvcache import GEOMETRIES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_copy_and_each_gather_write_as_many_bytes(dtype):
    written = {}
    for name, call in gathers.gathers(GEOMETRIES["cartpole"], dtype).items():
        with OperationCounter() as counter:
            call()
        written[name] = counter.counts.bytes_copied
    assert list(written) == ["copy", *gathers.FORMS]
    assert set(written.values()) == {
        5 * 8 * 2 * 2 * 64 * dtype.itemsize
    }  # tokens, rows, layers, keys and values, width


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gathers.py", "--geometry", "cartpole", "--rounds", "2"])
    monkeypatch.setattr(gathers, "OTHER_MEMORY", 8)
    threads = torch.get_num_threads()
    try:
        gathers.main()
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:3] for line in lines[2:4]] == [[" cartpole ", " warm "], [" cartpole ", " cold "]]
    assert all(line.count("|") == lines[0].count("|") == 7 for line in lines[:4])
