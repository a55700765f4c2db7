"""Staging to a device that copies late: a pinned buffer is never overwritten before its copy is done."""

import copy
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kvcache.staging import BUFFERS, PinnedStaging, Staging, make_staging

HOST = torch.device("cpu")


class LateDevice(TorchDispatchMode):
    """A device that does a copy when somebody waits for an event behind it, and not before.

    Attributes:
        pending: copies that were asked for and not done, oldest first; and the events between them.
        waits: how often the host waited for copies that were not done.
        allocations: pinned buffers.
    """

    def __init__(self):
        super().__init__()
        self.pending, self.waits, self.allocations = [], 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("non_blocking"):
            sent = torch.full_like(args[0], -1)
            self.pending.append((sent, args[0]))
            return sent
        return function(*args, **kwargs)

    def pinned(self, nbytes):
        self.allocations += 1
        return torch.empty(nbytes, dtype=torch.uint8)

    def event(self):
        return LateEvent(self)

    def run(self, until=None):
        """Do what is pending, up to an event."""
        while self.pending:
            each = self.pending.pop(0)
            if isinstance(each, tuple):
                each[0].copy_(each[1])
            elif each is until:
                return


class LateEvent:
    def __init__(self, device):
        self._device, self._last = device, None

    def record(self, stream):
        self._last = object()
        self._device.pending.append(self._last)

    def query(self):
        return self._last not in self._device.pending

    def synchronize(self):
        self._device.waits += 1
        self._device.run(self._last)


@pytest.fixture
def late():
    return LateDevice()


@pytest.fixture
def staging(late):
    return PinnedStaging(torch.device("meta"), late.pinned, late.event, lambda device: None)


def sent_late(late, staging, values):
    """What arrives of tensors that are all sent before any copy is done."""
    staging.device = HOST
    with late, _ToTheSameDevice():
        found = [staging.send(each) for each in values]
        late.run()
    return found


class _ToTheSameDevice:
    """torch copies nothing within a device; a stand-in for the other one has to be asked."""

    def __enter__(self):
        self._to = torch.Tensor.to
        torch.Tensor.to = lambda tensor, device, non_blocking: torch.ops.aten._to_copy.default(
            tensor, non_blocking=non_blocking
        )

    def __exit__(self, *error):
        torch.Tensor.to = self._to


def tensors(count, size=3):
    return [torch.arange(size) + 100 * each for each in range(count)]


@pytest.mark.parametrize("count", [1, BUFFERS, BUFFERS + 1, 5 * BUFFERS])
def test_what_is_sent_arrives_however_late_it_is_copied(late, staging, count):
    values = tensors(count)
    found = sent_late(late, staging, values)
    assert all(map(torch.equal, found, values))
    assert late.allocations == min(count, BUFFERS)


def test_the_host_waits_only_where_all_buffers_are_in_use(late, staging):
    sent_late(late, staging, tensors(BUFFERS))
    assert late.waits == 0
    sent_late(late, staging, tensors(BUFFERS))  # all copies were done
    assert late.waits == 0
    sent_late(late, staging, tensors(BUFFERS + 2))
    assert late.waits == 2


def test_buffers_grow_and_take_any_type_and_shape(late, staging):
    values = [torch.rand(2, 3), torch.arange(5), torch.zeros(0, 4), torch.rand(7, 9).double(), torch.tensor([True])]
    values += [torch.rand(size, 3).half() for size in range(1, 3 * BUFFERS)]
    found = sent_late(late, staging, values)
    assert all(map(torch.equal, found, values))
    assert [each.dtype for each in found] == [each.dtype for each in values]
    before = late.allocations
    sent_late(late, staging, [torch.rand(1, 3)] * BUFFERS)
    assert late.allocations == before


def test_on_a_cpu_nothing_is_copied():
    staging, values = make_staging(HOST), torch.arange(3)
    assert staging.send(values) is values
    assert type(staging) is Staging


def test_a_copy_has_buffers_of_its_own(late, monkeypatch):
    monkeypatch.setattr("kvcache.staging.make_staging", lambda device: ("made for", device))
    pinned = PinnedStaging(torch.device("cuda"), late.pinned, late.event, lambda device: None)
    for copied in (copy.deepcopy(pinned), pickle.loads(pickle.dumps(make_staging(HOST)))):
        assert copied == ("made for", torch.device("cuda")) or type(copied) is Staging


def test_cuda_gets_pinned_memory():
    assert type(make_staging(torch.device("cuda", 0))) is PinnedStaging
