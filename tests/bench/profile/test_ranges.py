from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
import torch
from traces import TINY, good_events, steps_of, synthetic, write_events

from kvbench.profile.ranges import INFERENCES, KINDS, MODEL, RangedReplay, annotate_cuda
from kvbench.replay.drive import FillerContent, Latents, run_step
from kvcache.config import CacheConfig
from kvcache.registry import make_backend

LATENTS = Latents(TINY.embed_dim, "cpu")


class Annotations:
    """Keeps the names of ranges, each with those around it."""

    def __init__(self):
        self.seen = []
        self.open = []

    @contextmanager
    def __call__(self, name):
        self.open.append(name)
        self.seen.append(tuple(self.open))
        try:
            yield
        finally:
            self.open.pop()


def driven(steps, backend="new"):
    cache = make_backend(backend, CacheConfig(TINY))
    annotations = Annotations()
    ranges = RangedReplay(cache, annotations)
    for step in steps:
        ranges.run_step(step, LATENTS.inputs(step))
    return cache, annotations.seen


@pytest.mark.parametrize("backend", ["legacy", "new", "new:private"])
def test_every_operation_of_a_step_has_its_range(tmp_path, backend):
    # A root, which clears; a simulation; and one that misses in one of its two environments.
    steps = steps_of(write_events(tmp_path / "trace", good_events()))
    _, seen = driven(steps, backend)
    root, recurrent = INFERENCES
    step = ["lookup", "assemble", MODEL, "hash", "store"]
    missed = ["lookup", MODEL, "supply", "assemble", MODEL, "hash", "store"]
    assert seen == [
        (root,), *((root, name) for name in [*step, "clear"]),
        (recurrent,), *((recurrent, name) for name in ["hash", *step]),
        (recurrent,), *((recurrent, name) for name in ["hash", *missed]),
    ]  # fmt: skip
    assert {names[-1] for names in seen} == {*KINDS, MODEL, *INFERENCES}


def test_a_backend_does_the_same_with_ranges_as_without(tmp_path):
    steps = steps_of(synthetic(tmp_path / "trace"))
    with_ranges, seen = driven(steps)
    without = make_backend("new", CacheConfig(TINY))
    content = FillerContent(without)
    calls = Counter()

    def count(operation, call, *args):
        calls[operation] += 1
        return call(*args)

    for step in steps:
        run_step(without, step, LATENTS.inputs(step), content, count)
    assert with_ranges.get_stats_summary() == without.get_stats_summary()
    assert torch.equal(with_ranges.keys_values_wm.block, without.keys_values_wm.block)
    # What a timed replay meters is what has a range; "supply" is the driver's own, and metered by none.
    assert Counter(names[-1] for names in seen if names[-1] in calls) == calls


def test_nothing_of_the_ranges_stays_with_the_backend(tmp_path):
    steps = steps_of(write_events(tmp_path / "trace", good_events()))
    cache, _ = driven(steps)
    before = dict(vars(cache))
    broken = RangedReplay(cache, lambda name: nullcontext())
    broken.append = None
    with pytest.raises(TypeError):
        broken.run_step(steps[0], LATENTS.inputs(steps[0]))
    assert set(vars(cache)) == set(before)


def test_ranges_of_a_cuda_device_are_nvtxs_too(monkeypatch):
    opened = []

    @contextmanager
    def nvtx(name):
        opened.append(name)
        yield
        opened.append(f"end of {name}")

    monkeypatch.setattr(torch.cuda.nvtx, "range", nvtx)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:  # noqa: SIM117
        with annotate_cuda("store"):
            torch.ones(1)
    assert opened == ["store", "end of store"]
    assert "store" in {each.key for each in profiler.key_averages()}
