"""Models on other devices than the CPU: one that is not there and holds nothing, and CUDA where there is one."""

import numpy as np
import pytest
import torch
from test_model import CACHES, ROUNDING, Episode, each_cache, each_position, far, model_of, observations
from test_search import played, same
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvcache.world_model import SearchConfig
from kvcache.world_model.config import DTYPES
from kvcache.world_model.play import play

_aten = torch.ops.aten
_META = torch.device("meta")
_COPIES = (_aten.copy_.default, _aten._to_copy.default)
if not hasattr(_aten.copy_.default, "_can_decompose"):
    pytest.skip("this torch cannot say which operations it decomposes", allow_module_level=True)


class Accelerator(TorchDispatchMode):
    """Lets the device ``meta`` stand for an accelerator, whose tensors cannot be read but by a transfer to the host.

    Every operation must have its tensors on one device, as CUDA would have it. What comes to the host is zeros.

    Attributes:
        transfers: tensors that came to the host so far.
        uploads: tensors that went to the device.
    """

    def __init__(self):
        super().__init__()
        self.transfers = self.uploads = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function._can_decompose():  # to the operations that move anything: inference mode hands over the others too
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if any(each.is_meta for each in tensors):
            to = kwargs.get("device")
            if function is _aten._to_copy.default and to is not None and to.type == "cpu":
                self.transfers += 1
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            if function is _aten._local_scalar_dense.default:
                self.transfers += 1
                return 0.0
        if function is _aten._pin_memory.default:
            return args[0]
        # A single number on the host may meet a tensor anywhere.
        devices = {each.device.type for each in tensors if each.ndim or each.is_meta}
        to = kwargs.get("device")
        self.uploads += function in _COPIES and (len(devices) == 2 or (devices == {"cpu"} and to in (_META, "meta")))
        assert len(devices) <= 1 or function in _COPIES, f"{function} of tensors on {sorted(devices)}"
        return function(*args, **kwargs)


@pytest.fixture
def accelerator():
    with Accelerator() as mode:
        yield mode


def test_the_stand_in_for_a_device_notices_what_cuda_would(accelerator):
    here, there = torch.ones(2), torch.ones(2, device="meta")
    with torch.inference_mode():
        for mixed in (
            lambda: here + there,
            lambda: torch.nn.functional.embedding(torch.zeros(2, dtype=torch.int64), there.view(2, 1)),
            lambda: there.index_select(0, torch.zeros(2, dtype=torch.int64)),
            lambda: torch.cat([there, here]),
        ):
            with pytest.raises(AssertionError, match=r"of tensors on \['cpu', 'meta'\]"):
                mixed()
        assert accelerator.transfers == 0
        assert there.cpu().tolist() == there.to("cpu", torch.float64).tolist() == [0, 0]
        assert float(there.max()) == 0
        assert accelerator.transfers == 3
        there.copy_(here)
        assert (there + torch.tensor(1.0)).is_meta


@each_cache
@pytest.mark.parametrize(
    ("positions", "options"),
    [
        ("rotary", {}),
        ("absolute", {"dtype": torch.bfloat16}),
        ("rotary", {"mask_padding": True}),
        ("absolute", {"cache_validation_mode": True}),
        ("rotary", {"context_length": 2}),
    ],
)
def test_searches_keep_what_they_calculate_with_on_the_device(accelerator, cache, positions, options):
    model = model_of(cache, **{"context_length": 5, "positions": positions, "device": "meta"} | options)
    searches = list(play(model, 4, 0, SearchConfig(num_simulations=2), episode_length=3))  # its window slides
    assert all(each.is_meta for each in (*model.state_dict().values(), model.support, model.keys_values_wm.block))
    assert {type(each.roots.latents) for each in searches} == {np.ndarray}


@each_cache
@each_position
def test_so_do_misses_reanalyses_images_and_predictions_without_a_cache(accelerator, cache, positions):
    model = model_of(cache, positions=positions, device="meta", observation_shape=(1, 9, 12))
    roots = model.forward_initial_inference(observations(3, 1, shape=(1, 9, 12)))
    missed = model.forward_recurrent_inference(roots.latents + 1, [0, 1, 2], timesteps=3)
    assert missed.sizes == [1, 1, 1]
    old = model.forward_initial_inference(torch.zeros(5, 1, 9, 12, device="meta"), reanalyzes=True)
    model.forward_recurrent_inference(torch.zeros(5, 1, 32, device="meta"), [0] * 5, reanalyzes=True)
    model.forward_without_cache(np.concatenate([old.latents] * 3, axis=1), [[0, 1]] * 5, 4)


@each_cache
@pytest.mark.parametrize(
    "options", [{}, {"verify_keys": True}, {"mask_padding": True}, {"chained_keys": True}], ids=str
)
def test_a_simulation_brings_its_results_to_the_host_at_once(accelerator, cache, options):
    model = model_of(cache, device="meta", **options)
    roots = model.forward_initial_inference(observations(3, 1))
    before = accelerator.transfers
    model.forward_recurrent_inference(roots.latents, [0, 1, 2], keys=roots.keys)
    assert accelerator.transfers - before == 1


@each_cache
@pytest.mark.parametrize("masked", [False, True])
def test_a_simulation_sends_actions_and_positions_at_once(accelerator, cache, masked):
    model = model_of(cache, device="meta", mask_padding=masked)
    roots = model.forward_initial_inference(observations(3, 1))
    before = accelerator.uploads
    model.forward_recurrent_inference(roots.latents, [0, 1, 2])
    # and where tokens are gathered from and scattered to; a resident batch has places of its own
    indices = 2 if cache.get("cache_storage") in ("slab", "paged") else 0
    indices += cache.get("cache_resident_batch", False)
    assert accelerator.uploads - before == indices + 1


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

ROUNDINGS = 64  # of sums that two devices make in different orders, through two layers and the heads


@cuda
@each_cache
@each_position
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda_predicts_what_the_cpu_does(cache, positions, dtype):
    results = []
    for device in ("cpu", "cuda"):
        model = model_of(cache, 20, positions, device=device, dtype=dtype)
        episode = Episode(model)
        results.append([])
        for _ in range(4):
            results[-1].append(found := episode.step())
            results[-1] += [below for below, _, _ in episode.simulate(2, found)]
    assert max(far(*pair) for pair in zip(*results, strict=True)) < ROUNDINGS * torch.finfo(dtype).eps


@cuda
@each_cache
@each_position
def test_cuda_searches_find_the_same_with_every_cache(cache, positions):
    wanted, found = (played(each, positions=positions, device="cuda")[1] for each in ({}, cache))
    equal, off = same(wanted, found)
    assert equal
    assert off < ROUNDING


@cuda
@each_cache
@each_position
def test_cuda_validation_raises_no_false_alarm(cache, positions):
    model, _ = played(cache, positions=positions, device="cuda", cache_validation_mode=True)
    assert model.cache.report.compared == model.cache.report.lookups > 0


@cuda
@pytest.mark.parametrize("cache", [each for each in CACHES.values() if each])
@pytest.mark.parametrize("options", [{"cuda_graph": True}, {"compile": True}, {"cuda_graph": True, "compile": True}])
def test_cuda_steps_predict_what_single_operations_do(cache, options):
    plain, other = (model_of(cache, 9, device="cuda", **more) for more in ({}, options))
    episodes = Episode(plain), Episode(other)
    for _ in range(6):
        below = [episode.simulate(2, episode.step()) for episode in episodes]
        for (wanted, _, _), (found, _, _) in zip(*below, strict=True):
            assert far(wanted, found) < ROUNDINGS * torch.finfo(torch.float32).eps
    assert other.step_counts.get("compilations", 1) == 1
    assert other.step_counts.get("captures", 1) <= 9
