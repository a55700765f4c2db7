"""Stopwatches, with clocks and devices that are not there."""

import pytest
import torch

from kvbench.measure.stopwatch import CudaStopwatch, HostStopwatch, make_stopwatch


class FakeMachine:
    """A clock that moves by hand, a device, and what was asked of both, in order."""

    def __init__(self):
        self.log = []
        self.now = 0

    def timer(self):
        self.log.append("timer")
        return self.now

    def synchronize(self):
        self.log.append("synchronize")
        self.now += 30  # outstanding work

    def work(self, *arguments):
        self.log.append("call")
        self.now += 500
        return arguments

    def event(self):
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, machine):
        self.machine = machine
        machine.log.append("event")

    def record(self):
        self.machine.log.append("record")
        self.at = self.machine.now

    def elapsed_time(self, end):
        self.machine.log.append("elapsed_time")
        return (end.at - self.at) * 1e-6  # milliseconds, as CUDA tells them


@pytest.fixture
def machine():
    return FakeMachine()


def test_host_stopwatch_has_one_clock(machine):
    result, (host, device) = HostStopwatch(machine.timer).time(machine.work, 1, "two")
    assert result == (1, "two")
    assert machine.log == ["timer", "call", "timer"]
    assert (host, device) == (500, None)


def test_cuda_stopwatch_has_both_clocks(machine):
    stopwatch = CudaStopwatch(machine.timer, machine.synchronize, machine.event)
    result, (host, read_device) = stopwatch.time(machine.work, 7)
    assert result == (7,)
    assert machine.log == [
        "event", "event", "record", "synchronize", "record", "timer", "call", "record", "synchronize", "timer",
    ]  # fmt: skip
    assert host == 500 + 30
    assert read_device() == pytest.approx(500)
    assert machine.log[-1] == "elapsed_time"


@pytest.mark.parametrize("kind", ["host", "cuda"])
def test_an_error_of_the_call_is_not_swallowed(machine, kind):
    stopwatch = (
        HostStopwatch(machine.timer)
        if kind == "host"
        else CudaStopwatch(machine.timer, machine.synchronize, machine.event)
    )
    with pytest.raises(ZeroDivisionError):
        stopwatch.time(lambda: 1 / 0)


def test_the_host_stopwatch_tells_nanoseconds():
    _, (host, _) = HostStopwatch().time(sum, range(200_000))
    assert 100_000 < host < 10_000_000_000


def test_a_device_has_its_stopwatch():
    assert isinstance(make_stopwatch("cpu"), HostStopwatch)
    assert isinstance(make_stopwatch("cuda"), CudaStopwatch)
    assert isinstance(make_stopwatch(torch.device("cuda", 1)), CudaStopwatch)
