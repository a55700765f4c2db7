"""What one step asks of a backend, in which order and with what."""

import numpy as np
import pytest
import torch
from traces import TINY, good_events

from kvbench.replay.content import latents_of
from kvbench.replay.drive import FillerContent, Latents, run_step
from kvbench.trace.steps import read_steps
from kvcache.backend import MISS, Scope
from kvcache.config import CacheConfig
from kvcache.keys_values import KeysValues
from kvcache.legacy import RecurrentMissError
from kvcache.registry import make_backend


class Log:
    """Meter, model and record of both."""

    def __init__(self, filler):
        self.calls = []
        self.filler = filler

    def __call__(self, operation, call, *args):
        self.calls.append(operation)
        return call(*args)

    def generate(self, step, row):
        self.calls.append(f"generate row {row}")
        return self.filler.generate(step, row)

    def assembled(self, backend, step, found):
        self.calls.append(f"assembled {found}")

    def append(self, batch, step):
        self.calls.append("append")
        self.filler.append(batch, step)

    def stored(self, backend, step):
        self.calls.append("stored")


@pytest.fixture
def steps():
    return list(read_steps(good_events()))


@pytest.mark.parametrize("name", ["legacy", "legacy-0.2.0", "new"])
def test_order_of_an_inference(steps, name):
    backend = make_backend(name, CacheConfig(TINY))
    latents, log = Latents(TINY.embed_dim, "cpu"), Log(FillerContent(backend))
    for step in steps:
        run_step(backend, step, latents.inputs(step), log, log)
    assert log.calls == [
        "lookup", "assemble", "assembled [0, 0]", "append", "hash", "store", "stored", "clear",
        "hash", "lookup", "assemble", "assembled [1, 1]", "append", "hash", "store", "stored",
        "hash", "lookup", "generate row 0", "assemble", f"assembled [{MISS}, 3]", "append", "hash", "store", "stored",
    ]  # fmt: skip


def test_the_miss_of_0_2_0_does_raise_there(steps):
    backend = make_backend("legacy-0.2.0", CacheConfig(TINY))
    with pytest.raises(RecurrentMissError):
        backend.lookup([0], [1], Scope.NODE)


def test_steps_that_only_clear():
    class Cleared:
        def __init__(self):
            self.cleared = []

        def clear_recur_cache(self):
            self.cleared.append("recur")

        def clear_init_caches(self, envs=None):
            self.cleared.append("init" if envs is None else envs)

        def clear_all(self):
            self.cleared.append("all")

    backend = Cleared()
    step = next(read_steps(good_events()[4:5]))
    step.clears = ["recur", "init", "all"]
    run_step(backend, step, Latents(16, "cpu").inputs(step), None, lambda operation, call, *args: call(*args))
    step.clears, step.cleared_envs = ["recur"], [2, 0]
    run_step(backend, step, Latents(16, "cpu").inputs(step), None, lambda operation, call, *args: call(*args))
    assert backend.cleared == ["recur", "init", "all", "recur", [2, 0]]


def test_deep_nodes_are_stored_with_lower_priority(steps):
    backend = make_backend("new", CacheConfig(TINY, eviction_strategy="priority"))
    given = []
    store = backend.store
    backend.store = lambda *args: given.append(args[-1]) or store(*args)
    latents, content = Latents(TINY.embed_dim, "cpu"), FillerContent(backend)
    for step in steps:
        run_step(backend, step, latents.inputs(step), content, lambda operation, call, *args: call(*args))
    assert given == [[0, 0], [-1, -1], [-1, -2]]


class TestLatents:
    def test_a_root_has_its_parents_on_the_device_and_a_node_on_the_host(self, steps):
        latents = Latents(16, "cpu")
        root, node, _ = (latents.inputs(step) for step in steps)
        assert root.parents is None  # both rows start from nothing
        assert root.new.shape == node.new.shape == (2, 1, 16)
        assert isinstance(node.parents, np.ndarray)
        steps[1].scope = Scope.ROOT
        assert isinstance(latents.inputs(steps[1]).parents, torch.Tensor)
        assert np.array_equal(node.parents[0, 0], latents_of([100], 16)[0])

    def test_rows_that_start_from_nothing_have_no_latent(self, steps):
        steps[1].parents = [None, 101]
        inputs = Latents(16, "cpu").inputs(steps[1])
        assert inputs.parents.shape == (1, 1, 16)
        assert np.array_equal(inputs.parents[0, 0], latents_of([101], 16)[0])


class TestFillerContent:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_fits_the_cache(self, steps, dtype):
        backend = make_backend("new", CacheConfig(TINY, dtype=dtype))
        content = FillerContent(backend)
        generated = content.generate(steps[2], 0)
        assert (generated.size, generated.num_samples, generated.dtype) == (1, 1, dtype)
        assert generated.entry_shape == (2, 2, 2, 8, 8)
        batch = KeysValues(2, TINY.num_heads, TINY.context_length, TINY.embed_dim, TINY.num_layers, dtype=dtype)
        content.append(batch, steps[1])
        assert batch.size == 2
        assert batch.block[..., :2, :].abs().min() > 0

    def test_is_the_same_for_every_backend(self, steps):
        one, two = (FillerContent(make_backend(name, CacheConfig(TINY))) for name in ("legacy", "new"))
        assert torch.equal(one.generate(steps[2], 0).block, two.generate(steps[2], 0).block)
