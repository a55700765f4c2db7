"""A simulation's passes compiled, and as a graph: the same predictions, made once and used for all weights."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import NotCapturableError, StandInGraphs
from test_model import CACHES, GEOMETRY, Episode, far, model_of
from test_weights import CHANGES

from kvcache.world_model import SearchConfig, WorldModel, WorldModelConfig
from kvcache.world_model.attention import ReadOnlyContext, append_and_attend, attend_beside
from kvcache.world_model.play import play
from kvcache.world_model.steps import CompiledStep, CompileError, GraphedStep, Step, make_step

ROUNDINGS = 64  # of a step's results in its dtype, where sums are made in another order
NEW = {name: cache for name, cache in CACHES.items() if name != "legacy"}
each_new_cache = pytest.mark.parametrize("cache", NEW.values(), ids=NEW)


def graphed(model):
    """The model, with a stand-in for CUDA graphs."""
    graphs = StandInGraphs(lambda: [*model.parameters(), *model.buffers(), *model.keys_values_wm.layer_tensors()])
    model._step = GraphedStep(model, Step(model), graphs)
    return model


def searched(model, searches=6, simulations=5):
    return list(play(model, searches, 0, SearchConfig(num_simulations=simulations), episode_length=4))


def same_searches(one, other):
    return all(
        np.array_equal(getattr(a.result, name), getattr(b.result, name))
        for a, b in zip(one, other, strict=True)
        for name in ("visit_counts", "values", "actions")
    )


# Graphs.


@each_new_cache
@pytest.mark.parametrize(("positions", "masked"), [("absolute", False), ("rotary", True)])
def test_graphs_find_what_operations_find_to_the_bit(cache, positions, masked):
    options = {"context_length": 7, "positions": positions, "mask_padding": masked}
    model = graphed(model_of(cache, **options))
    assert same_searches(searched(model), searched(model_of(cache, **options)))
    captures, graphs = model.step_counts["captures"], model._step._capturer
    assert captures <= 6 * (1 + masked)  # of contexts of 1 to 6 tokens
    assert graphs.replays == 6 * 5
    searched(model)
    assert model.step_counts["captures"] == captures


def test_a_resident_batch_keeps_its_content_beside_graphs(monkeypatch):
    moved = []
    for prepare in (graphed, lambda model: model):
        model = prepare(model_of(CACHES["resident"], context_length=13))
        moved.append([])
        kernels, note = model.cache._batch._kernels, moved[-1].append
        monkeypatch.setattr(kernels, "move", lambda *args, f=kernels.move, note=note: (note(len(args[1])), f(*args)))
        searched(model)
    assert moved[0] == moved[1]


@pytest.mark.parametrize("change", CHANGES, ids=lambda each: each.__name__)
def test_graphs_read_weights_as_they_are(change):
    model = graphed(model_of(CACHES["paged"]))
    plain = model_of(CACHES["paged"])
    for each in (model, plain):
        searched(each, 2)
        change(each)
    captures = model.step_counts["captures"]
    assert same_searches(searched(model, 2), searched(plain, 2))
    assert model.step_counts["captures"] in (captures, 2 * captures)


def test_other_rows_have_graphs_of_their_own_and_a_batch_elsewhere_new_ones():
    model = graphed(model_of(CACHES["paged"]))
    plain = model_of(CACHES["paged"])
    for rows in (2, 3, 5, 2):
        latents = np.random.default_rng(rows).standard_normal((rows, 1, 32)).astype(np.float32)
        found, wanted = (
            each.forward_recurrent_inference(latents, [1] * rows, reanalyzes=True) for each in (model, plain)
        )
        assert far(found, wanted) == 0
    assert model.step_counts["captures"] == 4  # five rows made the batch's memory grow


def test_tensors_that_a_caller_puts_into_the_batch_are_used():
    class Replaces(Step):
        def __call__(self, sent, batch):
            for layer in batch:
                layer._k_cache._cache = layer._k_cache._cache.clone()
            return step(sent, batch)

    model = graphed(model_of(CACHES["private"]))
    step, model._step = model._step, None
    model._step = Replaces(model)
    assert same_searches(searched(model, 2), searched(model_of(CACHES["private"]), 2))
    assert step.captures == 0


def test_the_stand_in_refuses_what_cuda_cannot_capture():
    known, foreign = torch.ones(3), torch.ones(3)

    def capture(what):
        kept = known

        def run():
            return what(kept)

        return StandInGraphs(lambda: [known]).capture(run)

    for what in (
        lambda x: x + torch.ones(3).cpu(),
        lambda x: x * x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x + foreign,
        lambda x: x if x.sum() > 0 else -x,
    ):
        with pytest.raises(NotCapturableError):
            capture(what)
    replay, result = capture(lambda x: (x + 1) * 2)
    assert result.isnan().all()
    known.fill_(4)
    replay()
    assert result.tolist() == [10, 10, 10]


# Compiled.


def furthest(one, other, steps, depth):
    """The largest difference of what two models predict below the roots of an episode."""
    episodes, off = (Episode(one), Episode(other)), 0.0
    for _ in range(steps):
        below = [episode.simulate(depth, episode.step()) for episode in episodes]
        off = max([off, *(far(found, wanted) for (found, _, _), (wanted, _, _) in zip(*below, strict=True))])
    return off


@pytest.fixture
def traced(monkeypatch):
    """torch compiles to its own operations: quick, and with all of tracing."""
    monkeypatch.setattr("kvcache.world_model.steps.BACKEND", "eager")


def test_attention_beside_a_context_is_attention_to_all_of_it():
    model = model_of({})
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, 1, 16, generator=generator) for _ in range(3))
    cache = model._empty(3)[0]
    cache.update(*(torch.randn(3, 2, 4, 16, generator=generator) for _ in range(2)))
    mask = torch.tensor([True, False, True, True, True]).view(1, 1, 1, 5)
    for each in (None, mask):
        cache._k_cache._size = cache._v_cache._size = 4
        beside = ReadOnlyContext([cache.get()])[0]
        found = attend_beside(beside, query, key, value, each)
        wanted = append_and_attend(cache, query, key, value, each)
        assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(("name", "positions"), [("legacy", "rotary"), ("resident", "absolute")])
def test_compiled_passes_predict_the_same_within_rounding(traced, name, positions):
    compiled, plain = (model_of(CACHES[name], positions=positions, compile=each) for each in (True, False))
    assert furthest(compiled, plain, 6, 2) < ROUNDINGS * torch.finfo(torch.float32).eps  # windows slide
    assert compiled.step_counts == {"compilations": 1}  # for all lengths
    assert plain.step_counts == {}


def test_compiled_passes_read_weights_as_they_are(traced):
    compiled, plain = (model_of(CACHES["paged"], compile=each) for each in (True, False))
    for each in (compiled, plain):
        searched(each, 2)
        for change in CHANGES[:2]:
            change(each)
    for found, wanted in zip(searched(compiled, 2), searched(plain, 2), strict=True):
        assert np.array_equal(found.result.visit_counts, wanted.result.visit_counts)
        assert np.allclose(found.result.values, wanted.result.values, atol=1e-4)
    assert compiled.step_counts == {"compilations": 1}


def test_each_model_counts_its_own_compilations(traced):
    """torch gives up on a function that it compiled often, whoever's it is."""
    with torch._dynamo.config.patch(cache_size_limit=1):
        for _ in range(2):
            model = model_of(CACHES["paged"], compile=True)
            searched(model, 2, 2)
            assert model.step_counts == {"compilations": 1}


def test_where_torch_cannot_compile_a_line_says_so(monkeypatch):
    def broken(name):
        def compile_graph(graph, inputs):
            raise RuntimeError("No working C++ compiler found\nand much more")

        return compile_graph

    monkeypatch.setattr("torch._dynamo.lookup_backend", broken)
    with pytest.raises(CompileError) as error:
        searched(model_of(CACHES["paged"], compile=True), 2)
    assert "No working C++ compiler found" in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("compile=True: torch cannot compile here (")


def test_the_configuration_chooses_the_step():
    assert type(model_of({})._step) is Step
    assert type(model_of({}, compile=True)._step) is CompiledStep
    for name, value in (("compile", 1), ("cuda_graph", "yes")):
        with pytest.raises(ValueError, match=f"{name} must be True or False"):
            model_of({}, **{name: value})
    with pytest.raises(ValueError, match="cuda_graph=True needs a CUDA device, got device 'cpu'"):
        model_of(CACHES["paged"], cuda_graph=True)


def test_copies_make_steps_of_their_own():
    model = model_of(CACHES["paged"], compile=True)
    copied = copy.deepcopy(model)
    assert copied._step._model is copied
    assert type(make_step(model)) is CompiledStep
    assert copied._step is not model._step


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.full)], ids=str)
def test_inductor_predicts_the_same_within_rounding(dtype):
    shape = replace(GEOMETRY, num_layers=1)
    configs = (WorldModelConfig(shape, compile=each, dtype=dtype, **CACHES["paged"]) for each in (True, False))
    compiled, plain = map(WorldModel, configs)
    assert furthest(compiled, plain, 5, 1) < ROUNDINGS * torch.finfo(dtype).eps
    assert compiled.step_counts == {"compilations": 1}
