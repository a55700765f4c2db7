"""The containers, and the names by which a LightZero model reaches into them."""

import pytest
import torch
from conformance import HEAD_DIM, HEADS, LAYERS, TOKENS, entry, live, replace_layer_tensors, same_bits
from hypothesis import given
from hypothesis import strategies as st

from kvcache.keys_values import Cache, KeysValues, KVCache

ROWS = 3


def empty(tokens=TOKENS, rows=ROWS):
    return KeysValues(rows, HEADS, tokens, HEADS * HEAD_DIM, LAYERS)


def tokens(first, count, rows=1):
    """``count`` tokens, each filled with its own number from ``first`` on: ``[rows, H, count, D]``."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    return numbers.view(1, 1, count, 1).expand(rows, HEADS, count, HEAD_DIM)


def numbers(cache):
    return cache.get()[0, 0, :, 0].tolist()


def test_a_new_container_is_empty_and_zero():
    kv = empty()
    assert (kv.size, len(kv), kv.num_samples) == (0, LAYERS, ROWS)
    assert kv.entry_shape == (LAYERS, 2, HEADS, TOKENS, HEAD_DIM)
    assert (kv.device, kv.dtype) == (torch.device("cpu"), torch.float32)
    assert not kv.block.any()


@pytest.mark.parametrize("sizes", [(0, 2, 6, 6, 2), (1, 0, 6, 6, 2), (1, 2, 0, 6, 2), (1, 2, 6, 6, 0), (1, 4, 6, 6, 2)])
def test_bad_sizes_are_value_errors(sizes):
    with pytest.raises(ValueError, match="positive sizes"):
        KeysValues(*sizes)


def test_updates_append_to_one_layer_along_tokens():
    kv = empty(rows=1)
    kv[1].update(tokens(1, 1), tokens(11, 1))
    kv[1].update(tokens(2, 2), tokens(12, 2))
    keys, values = kv[1].get()
    assert keys.shape == values.shape == (1, HEADS, 3, HEAD_DIM) == kv[1].shape
    assert (numbers(kv[1]._k_cache), numbers(kv[1]._v_cache)) == ([1, 2, 3], [11, 12, 13])
    assert (kv[0].size, kv[1].size) == (0, 3)


def test_an_update_shows_in_the_block():
    kv = empty(rows=1)
    kv[1].update(tokens(1, 2), tokens(11, 2))
    assert kv.block[0, 1, 0, 0, :, 0].tolist() == [1, 2, 0, 0, 0, 0]
    assert kv.block[0, 1, 1, 0, :, 0].tolist() == [11, 12, 0, 0, 0, 0]
    assert not kv.block[0, 0].any()


@pytest.mark.parametrize(
    ("capacity", "held", "new", "kept"),
    [
        (6, 4, 2, 4),  # fits
        (6, 6, 1, 4),  # one too many drops a pair
        (6, 6, 2, 4),
        (6, 5, 2, 3),
        (7, 7, 2, 5),
        (7, 6, 2, 4),
        (6, 6, 3, 2),
        (6, 6, 6, 0),
        (6, 1, 6, 0),  # there is no pair to drop
    ],
)
def test_overflow_drops_the_oldest_in_even_numbers(capacity, held, new, kept):
    cache = Cache(torch.zeros(1, HEADS, capacity, HEAD_DIM))
    cache.update(tokens(1, held))
    cache.update(tokens(held + 1, new))
    assert numbers(cache) == list(range(held - kept + 1, held + new + 1))
    assert cache.size == kept + new


@given(capacity=st.integers(1, 9), counts=st.lists(st.integers(0, 9), max_size=8))
def test_any_sequence_of_updates_keeps_the_newest_tokens_in_order(capacity, counts):
    cache, expected, serial = Cache(torch.zeros(1, HEADS, capacity, HEAD_DIM)), [], 1
    for count in counts:
        if count > capacity:
            continue
        while len(expected) + count > capacity:
            expected = expected[2:]
        expected += range(serial, serial + count)
        cache.update(tokens(serial, count))
        serial += count
        assert numbers(cache) == expected


def test_more_tokens_than_the_cache_holds_are_refused_and_nothing_changes():
    cache = Cache(torch.zeros(1, HEADS, 4, HEAD_DIM))
    cache.update(tokens(1, 3))
    with pytest.raises(ValueError, match="5 tokens to a cache of 4"):
        cache.update(tokens(4, 5))
    assert numbers(cache) == [1, 2, 3]


@pytest.mark.parametrize(
    "shape",
    [
        (ROWS + 1, HEADS, 1, HEAD_DIM),
        (1, HEADS, 1, HEAD_DIM),
        (ROWS, 1, 1, HEAD_DIM),
        (ROWS, HEADS, 1, 1),
        (ROWS, HEADS),
    ],
)
def test_tokens_of_another_shape_are_refused(shape):
    kv = empty()
    with pytest.raises(ValueError, match="cannot append"):
        kv[0].update(torch.ones(shape), torch.ones(shape))
    assert kv[0].size == 0
    assert not kv.block.any()


@pytest.mark.parametrize("values", [(1, HEADS, 2, HEAD_DIM), (1, HEADS, 1, HEAD_DIM + 1)], ids=["tokens", "width"])
def test_keys_and_values_of_unequal_shape_are_refused_together(values):
    """A layer has one size: keys that went in without their values would be out of step with them for good."""
    kv = empty(rows=1)
    with pytest.raises(ValueError, match="append"):
        kv[0].update(tokens(1, 1), torch.ones(values))
    assert (kv[0]._k_cache.size, kv[0]._v_cache.size) == (0, 0)


def test_an_update_keeps_no_autograd_graph():
    kv = empty(rows=1)
    weight = torch.ones(1, requires_grad=True)
    kv[0].update(tokens(1, 2) * weight, tokens(1, 2) * weight)
    assert not kv.block.requires_grad
    assert not any(tensor.requires_grad for tensor in kv.layer_tensors())


def test_reset_forgets_tokens_and_keeps_memory():
    kv = empty()
    block = kv.block
    kv[0].update(tokens(1, 2, ROWS), tokens(1, 2, ROWS))
    kv.reset()
    assert kv.size == kv[0].size == kv[0]._v_cache.size == 0
    assert kv.block is block


def test_a_layer_and_a_cache_reset_alone():
    kv = empty()
    kv.size = 4
    kv[0].reset()
    assert [layer.size for layer in kv] == [0, 4]
    kv[1]._v_cache.reset()
    assert (kv[1]._k_cache.size, kv[1]._v_cache.size) == (4, 0)


def test_the_size_is_set_for_keys_and_values_of_all_layers():
    kv = empty()
    kv.size = 3
    assert [(layer._k_cache._size, layer._v_cache._size) for layer in kv] == [(3, 3)] * LAYERS


@pytest.mark.parametrize("mask_type", [list, torch.tensor, lambda mask: torch.tensor(mask).numpy()])
@pytest.mark.parametrize("replaced", [False, True])
def test_prune_keeps_the_chosen_rows(mask_type, replaced):
    kv = empty()
    for row in range(ROWS):
        kv.block[row] = row + 1
    kv.size = 2
    if replaced:
        replace_layer_tensors(kv)
    kv.prune(mask_type([True, False, True]))
    assert (kv.num_samples, kv.size) == (2, 2)
    assert (live(kv)[0] == 1).all()
    assert (live(kv)[1] == 3).all()
    kv[0].update(tokens(9, 1, 2), tokens(9, 1, 2))
    assert (kv.block[:, 0, :, :, 2] == 9).all()


def test_prune_of_one_layer():
    kv = empty()
    layer = KVCache(kv[0]._k_cache, kv[0]._v_cache)
    layer.prune([False, True, True])
    assert layer.shape == (2, HEADS, 0, HEAD_DIM)


@pytest.mark.parametrize("mask", [[True, False], [True] * 4, [1, 0, 1], [[True, True, True]]])
def test_a_mask_must_be_one_boolean_per_row(mask):
    kv = empty()
    with pytest.raises(ValueError, match="one boolean per row"):
        kv.prune(mask)
    assert kv.num_samples == ROWS


@pytest.mark.parametrize("replaced", [False, True])
def test_a_clone_is_independent_and_has_live_tokens_only(replaced):
    kv = entry(1, size=3)
    if replaced:
        replace_layer_tensors(kv)
    clone = kv.clone()
    assert same_bits(live(clone), live(entry(1, size=3)))
    assert clone.size == 3
    assert clone.holds_block
    assert not clone.block[..., 3:, :].any()
    kv[0]._k_cache._cache.fill_(-1)
    clone[1]._v_cache._cache.fill_(-2)
    assert same_bits(clone[0]._k_cache.get(), entry(1, size=3)[0]._k_cache.get())
    assert same_bits(kv[1]._v_cache.get(), entry(1, size=3)[1]._v_cache.get())


def test_containers_around_a_block_share_it():
    block = torch.zeros(1, LAYERS, 2, HEADS, TOKENS, HEAD_DIM)
    kv = KeysValues.from_block(block, 2)
    assert kv.block is block
    assert kv.size == 2
    kv[1]._v_cache._cache.fill_(5)
    assert (block[0, 1, 1] == 5).all()
    assert not block[0, 0].any()


def test_containers_around_separate_tensors_share_them_and_stack_a_block():
    pairs = [
        (torch.full((1, HEADS, TOKENS, HEAD_DIM), 2.0 * i), torch.ones(1, HEADS, TOKENS, HEAD_DIM)) for i in (0, 1)
    ]
    kv = KeysValues.from_layers(pairs, 3)
    assert not kv.holds_block
    assert all(a is b for a, b in zip(kv.layer_tensors(), [t for pair in pairs for t in pair], strict=True))
    block = kv.block
    assert (block[0, 1, 0] == 2).all()
    assert (block[0, :, 1] == 1).all()
    block.fill_(9)
    assert (pairs[0][1] == 1).all()


class TestNamesThatLightZeroUses:
    def test_assigned_tensors_are_what_is_read(self):
        kv, other = entry(1), entry(2)
        for layer in range(LAYERS):
            kv._keys_values[layer]._k_cache._cache = other._keys_values[layer]._k_cache._cache
            kv._keys_values[layer]._v_cache._cache = other._keys_values[layer]._v_cache._cache
        assert not kv.holds_block
        assert same_bits(live(kv), live(other))
        assert same_bits(kv.block, other.block)
        assert same_bits(kv.clone().block[..., :4, :], other.block[..., :4, :])

    @pytest.mark.parametrize("layer", range(LAYERS))
    @pytest.mark.parametrize("name", ["_k_cache", "_v_cache"])
    def test_one_assigned_tensor_is_enough_to_leave_the_block(self, layer, name):
        kv = entry(1)
        cache = getattr(kv._keys_values[layer], name)
        cache._cache = torch.full_like(cache._cache, -1.0)
        kind = ("_k_cache", "_v_cache").index(name)
        assert not kv.holds_block
        assert (kv.block[:, layer, kind] == -1).all()
        assert (kv.block == -1).sum() == cache._cache.numel()

    def test_assigned_sizes_are_what_is_read(self):
        kv = entry(1)
        for layer in kv._keys_values:
            layer._k_cache._size = layer._v_cache._size = 2
        assert kv.size == kv[1].size == 2
        assert live(kv).shape[4] == 2

    def test_assigned_tensors_may_have_another_number_of_rows(self):
        kv = empty(rows=1)
        for layer in kv._keys_values:
            layer._k_cache._cache = torch.ones(4, HEADS, TOKENS, HEAD_DIM)
            layer._v_cache._cache = torch.ones(4, HEADS, TOKENS, HEAD_DIM)
        assert kv.num_samples == 4
        assert kv.block.shape == (4, LAYERS, 2, HEADS, TOKENS, HEAD_DIM)


def test_a_clone_carries_no_autograd_graph():
    layers = [(torch.ones(1, 2, 6, 3, requires_grad=True) * 2, torch.ones(1, 2, 6, 3, requires_grad=True) * 3)] * 2
    assert not KeysValues.from_layers(layers, size=4).clone().block.requires_grad
