"""A stand-in for CUDA graphs on a CPU: it repeats operations on their tensors, and refuses what CUDA would refuse."""

from contextlib import contextmanager

import pytest
import torch
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_HOST_READS = ("cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__")
_REFUSED_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class NotCapturableError(AssertionError):
    """Something that no CUDA graph may contain."""


def tensors_in(values):
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def memory_of(tensor):
    return tensor.untyped_storage()._cdata


class Recording(TorchDispatchMode):
    """Notes each operation with its tensors. Memory is the known one, or the graph's own.

    Attributes:
        operations: function, arguments, results; those of views are left out.
    """

    def __init__(self, known):
        super().__init__()
        self.known = {memory_of(each) for each in known}
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        foreign = [each for each in tensors_in((args, kwargs)) if memory_of(each) not in self.known]
        if foreign:
            raise NotCapturableError(f"{function} reads memory that nobody keeps: {list(foreign[0].shape)}")
        if _REFUSED_TAGS & set(function.tags):
            raise NotCapturableError(f"{function} depends on values")
        result = function(*args, **kwargs)
        self.known |= {memory_of(each) for each in tensors_in(result)}
        if not function.is_view:
            self.operations.append((function, args, kwargs, result))
        return result

    def replay(self):
        for function, args, kwargs, result in self.operations:
            given = {memory_of(each) for each in tensors_in((args, kwargs))}
            for kept, new in zip(tensors_in(result), tensors_in(function(*args, **kwargs)), strict=True):
                assert kept.shape == new.shape
                if memory_of(kept) not in given:  # else it was written in place
                    kept.copy_(new)


class StandInGraphs:
    """As ``CudaGraphs``. A capture does nothing: batches hold what warming up left, and results are NaN till a replay.

    Args:
        known: tensors that stay where they are: weights, and last of all one of the batch's.
    """

    def __init__(self, known):
        self.known, self.replays = known, 0

    def capture(self, run):
        with torch.inference_mode(False), torch.no_grad(), _no_host_reads():
            run()
            kept = [each.cell_contents for each in run.__closure__ if isinstance(each.cell_contents, torch.Tensor)]
            with Recording([*self.known(), *kept]) as recording:
                result = run()
        result.fill_(torch.nan)

        def replay():
            self.replays += 1
            with _unsafe_preserve_version_counter(self.known()[-1]):  # torch does not see what a graph writes to
                recording.replay()

        return replay, result


@contextmanager
def _no_host_reads():
    def refuse(*args, **kwargs):
        raise NotCapturableError("the host reads a tensor")

    with pytest.MonkeyPatch.context() as patch:
        for name in _HOST_READS:
            patch.setattr(torch.Tensor, name, refuse)
        yield
