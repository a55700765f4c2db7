"""Counted costs of snippets whose costs are known."""

import pytest
import torch
import torch.nn.functional as F

from kvbench.measure.counters import Counts, OperationCounter, PlainCounter

BYTES = 4 * 6 * 4  # of a [4, 6] float32 tensor


def counted(snippet, *tensors):
    """Counts of a snippet, by both counters."""
    with OperationCounter() as counter:
        snippet(*tensors)
    with PlainCounter() as plain:
        snippet(*tensors)
    assert counter.counts == plain.counts
    return counter.counts


def ones(*shape):
    return torch.ones(shape or (4, 6))


@pytest.mark.parametrize(
    ("snippet", "counts"),
    [
        (lambda a, b: a.copy_(b), Counts(1, BYTES, 0, 0, 0)),
        (lambda a, b: a[0].copy_(b[0]), Counts(1, BYTES // 4, 0, 0, 0)),
        (lambda a, b: a.clone(), Counts(1, BYTES, 1, BYTES, 0)),
        (lambda a, b: a + b, Counts(1, BYTES, 1, BYTES, 0)),
        (lambda a, b: torch.add(a, b, out=a), Counts(1, BYTES, 0, 0, 0)),
        (lambda a, b: a.add_(b), Counts(1, BYTES, 0, 0, 0)),
        (lambda a, b: a.zero_(), Counts(1, BYTES, 0, 0, 0)),
        (lambda a, b: a.narrow(1, 0, 3).zero_(), Counts(1, BYTES // 2, 0, 0, 0)),
        (lambda a, b: torch.stack([a, b]), Counts(1, 2 * BYTES, 1, 2 * BYTES, 0)),
        (lambda a, b: torch.cat([a, b]), Counts(1, 2 * BYTES, 1, 2 * BYTES, 0)),
        (lambda a, b: F.pad(a, (0, 6)), Counts(1, 2 * BYTES, 1, 2 * BYTES, 0)),
        (lambda a, b: a.index_select(0, torch.tensor([1, 2])), Counts(1, BYTES // 2, 1, BYTES // 2, 0)),
        (lambda a, b: a.index_copy_(0, torch.tensor([1]), b[:1]), Counts(1, BYTES // 4, 0, 0, 0)),
        (lambda a, b: torch.empty(4, 6), Counts(1, 0, 1, BYTES, 0)),
        (lambda a, b: torch.empty_like(a), Counts(1, 0, 1, BYTES, 0)),
        (lambda a, b: torch.zeros(4, 6), Counts(1, BYTES, 1, BYTES, 0)),
        (lambda a, b: a.to(torch.float64), Counts(1, 2 * BYTES, 1, 2 * BYTES, 0)),
        (lambda a, b: a.t().contiguous(), Counts(1, BYTES, 1, BYTES, 0)),
        (lambda a, b: a[0, 0].item(), Counts(1, 0, 0, 0, 1)),
        (lambda a, b: bool(a[0, 0] > 0), Counts(2, 1, 1, 1, 1)),
        (torch.equal, Counts(1, 0, 0, 0, 1)),
    ],
    ids=[
        "copy_", "copy_ of a row", "clone", "add", "add out", "add_", "zero_", "zero_ of a part", "stack", "cat", "pad",
        "index_select", "index_copy_", "empty", "empty_like", "zeros", "to", "contiguous", "item", "bool", "equal",
    ],
)  # fmt: skip
def test_known_costs(snippet, counts):
    assert _without_constants(snippet) == counts


def _without_constants(snippet):
    """Counts of a snippet less those of the index tensors that it makes (``torch.tensor`` of a list)."""
    made = []
    original = torch.tensor

    def tensor(values):
        with torch.utils._python_dispatch._disable_current_modes():
            made.append(original(values))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tensor", tensor)
        return counted(snippet, ones(), ones())


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.narrow(1, 1, 2),
        lambda a: a.view(24),
        lambda a: a.reshape(2, 12),
        lambda a: a[1:],
        lambda a: a[0],
        lambda a: a.unbind(0),
        lambda a: a.unsqueeze(0).squeeze(0),
        lambda a: a.expand(3, 4, 6),
        lambda a: a.t(),
        lambda a: a.movedim(0, 1),
        lambda a: a.contiguous(),
        lambda a: a.to(torch.float32),
        lambda a: a.detach(),
        lambda a: a.numpy(),
        lambda a: (a.shape, a.size(0), a.data_ptr(), len(a)),
    ],
    ids=[
        "narrow", "view", "reshape", "slice", "select", "unbind", "unsqueeze", "expand", "t", "movedim", "contiguous",
        "to", "detach", "numpy", "description",
    ],
)  # fmt: skip
def test_views_and_descriptions_cost_nothing(view):
    assert counted(view, ones()) == Counts()


def test_a_copy_counts_what_is_written_not_what_is_reserved():
    pool = ones(100, 6)
    assert counted(lambda: pool[3:5].copy_(ones(2, 6))).bytes_copied == 2 * 6 * 4 * 2  # ones() writes as much again


def test_counts_add_up():
    assert Counts(1, 2, 3, 4, 5) + Counts(10, 20, 30, 40, 50) == Counts(11, 22, 33, 44, 55)


def test_a_counter_counts_only_while_it_is_active():
    a = ones()
    with OperationCounter() as counter:
        a.clone()
    a.clone()
    assert counter.counts == Counts(1, BYTES, 1, BYTES, 0)


def test_one_counter_inside_another():
    a = ones()
    with OperationCounter() as outer:
        a.clone()
        with OperationCounter() as inner:
            a.clone()
    assert inner.counts == Counts(1, BYTES, 1, BYTES, 0)
    assert outer.counts == Counts(2, 2 * BYTES, 2, 2 * BYTES, 0)


def test_a_compiled_function_is_counted_and_not_compiled_anew():
    a = ones(4, 4)
    compiled = torch.compile(lambda x: torch.relu(x @ x), backend="eager")
    compiled(a)
    torch._dynamo.utils.counters.clear()
    with OperationCounter() as counter:
        compiled(a)
    assert counter.counts == Counts(2, 2 * 64, 2, 2 * 64, 0)
    assert not torch._dynamo.utils.counters["frames"]
