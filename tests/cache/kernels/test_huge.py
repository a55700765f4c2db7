"""Memory in huge pages: the system is asked for them where tokens are moved, and nowhere else."""

from pathlib import Path

import pytest
import torch

from kvcache import CacheConfig, Geometry, Scope, make_backend
from kvcache.kernels import large_memory

MAPS = Path("/proc/self/smaps")
MEGABYTE = 1 << 20
GEOMETRY = Geometry("large", 4, 4, 256, 162, 8, 50, "absolute")

pytestmark = [
    pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="no huge pages here"),
    pytest.mark.usefixtures("compiled"),
]


@pytest.fixture
def compiled():
    pytest.importorskip("kvcache.kernels._cpu_kernels")


def asks_for_huge_pages(tensor):
    """Of the tensor's middle: its ends may lie in pages that others use too."""
    address, is_in_it = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in MAPS.read_text().splitlines():
        first, *flags = line.split()
        if first == "VmFlags:" and is_in_it:
            return "hg" in flags
        begin, dash, end = first.partition("-")
        if dash:
            is_in_it = int(begin, 16) <= address < int(end, 16)
    raise LookupError("this memory is not mapped")


def test_memory_with_room_for_some():
    assert asks_for_huge_pages(large_memory((64 * MEGABYTE,), "cpu", torch.uint8))
    assert not asks_for_huge_pages(torch.empty(64 * MEGABYTE, dtype=torch.uint8))


@pytest.mark.parametrize("size", [0, 1, MEGABYTE])
def test_memory_without_room_for_any_is_as_it_was(size):
    assert large_memory((size,), "cpu", torch.uint8).shape == (size,)


def test_a_device_without_addresses():
    assert large_memory((2, 3), "meta", torch.float32).shape == (2, 3)


@pytest.mark.parametrize("name", ["new:slab", "new:paged", "new:paged-resident"])
def test_batches_and_pools_that_kernels_move_tokens_in(name):
    cache = make_backend(name, CacheConfig(GEOMETRY))
    cache.lookup([0], [None], Scope.ROOT)
    cache.assemble()
    for layer in cache.keys_values_wm:
        layer.update(torch.ones(1, 4, 2, 64), torch.ones(1, 4, 2, 64))
    cache.store([0], [7], Scope.ROOT)
    assert asks_for_huge_pages(cache._batch._buffer._memory)
    assert asks_for_huge_pages(cache._batch._memory.rows)
