"""Peaks of memory: counted on the host, asked of the allocator on CUDA."""

import time

import pytest
import torch

from kvbench.measure.memory import CudaMemory, HostMemory, watch_memory

MEGABYTE = 1 << 20


def megabytes(count):
    return torch.empty(count * MEGABYTE, dtype=torch.uint8)


def peak_of(code):
    with HostMemory() as memory:
        code()
    return memory.peak / MEGABYTE


class TestHostMemory:
    def test_what_is_held_at_once_counts_and_what_was_let_go_does_not(self):
        def code():
            first = megabytes(3)
            del first
            second, third = megabytes(1), megabytes(4)
            del second
            third = megabytes(2)  # while the four are still there
            return third

        assert peak_of(code) == 6

    def test_what_a_call_makes_and_drops_is_part_of_it(self):
        assert peak_of(lambda: torch.stack([megabytes(1), megabytes(1)]).clone().sum()) == pytest.approx(4, abs=0.01)

    def test_what_was_there_before_is_not(self):
        there = megabytes(5)
        assert peak_of(lambda: (there.view(5, -1)[0], there.fill_(1), there.copy_(there))) == 0

    def test_views_and_writes_in_place_hold_nothing_of_their_own(self):
        def code():
            block = megabytes(2)
            rows = [row.view(-1) for row in block.view(4, -1).unbind(0)]
            torch.add(block, 1, out=block)
            return rows

        assert peak_of(code) == 2

    def test_a_view_keeps_its_storage(self):
        def code():
            row = megabytes(2)[:1]
            return row, megabytes(1)

        assert peak_of(code) == 3

    def test_a_thousand_storages_one_after_the_other_are_one(self):
        def code():
            for _ in range(1000):
                megabytes(1)

        assert peak_of(code) == 1

    def test_an_operation_costs_the_same_however_many_storages_are_alive(self):
        def seconds(alive):
            with HostMemory():
                held = [torch.empty(1) for _ in range(alive)]
                start = time.process_time()
                held += [torch.empty(1) for _ in range(200)]
                return time.process_time() - start

        assert min(seconds(4000) for _ in range(3)) < 4 * min(seconds(10) for _ in range(3))

    def test_nothing(self):
        assert peak_of(lambda: None) == 0


class TestCudaMemory:
    def test_it_is_the_allocators_peak_above_what_was_there(self, monkeypatch):
        calls = []
        for name, value in {
            "synchronize": None, "reset_peak_memory_stats": None, "memory_allocated": 100, "max_memory_allocated": 350,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, lambda device, name=name, value=value: calls.append(name) or value)
        with watch_memory("cuda") as memory:
            calls.append("work")
        assert memory.peak == 250
        assert calls == [
            "synchronize", "reset_peak_memory_stats", "memory_allocated", "work", "synchronize", "max_memory_allocated",
        ]  # fmt: skip

    def test_the_device_decides(self):
        assert isinstance(watch_memory("cpu"), HostMemory)
        assert isinstance(watch_memory(torch.device("cuda", 1)), CudaMemory)
