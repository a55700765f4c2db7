"""Cache keys."""

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kvcache.hashing import hash_state, hash_states

LATENT = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)
KEY = xxhash.xxh64(LATENT.tobytes()).intdigest()


def test_a_key_is_xxh64_of_the_float32_bytes():
    assert hash_state(LATENT) == KEY
    assert 0 <= KEY < 2**64


@pytest.mark.parametrize(
    "latent",
    [
        torch.from_numpy(LATENT),
        torch.from_numpy(LATENT).requires_grad_(),
        LATENT.astype(np.float64),
        LATENT.astype(">f4"),
        torch.from_numpy(LATENT).double(),
        np.asfortranarray(LATENT),
        np.repeat(LATENT, 2, axis=1)[:, ::2],
        torch.from_numpy(LATENT.T.copy()).T,
        torch.from_numpy(np.repeat(LATENT, 2, axis=0))[::2],
        LATENT.reshape(2, 2, 6),
        LATENT.ravel(),
    ],
    ids=[
        "tensor",
        "tensor with grad",
        "float64",
        "big-endian",
        "float64 tensor",
        "fortran order",
        "strided",
        "transposed tensor",
        "strided tensor",
        "other shape",
        "flat",
    ],
)
def test_the_same_latent_has_the_same_key_however_it_is_held(latent):
    assert hash_state(latent) == KEY


def test_half_precision_is_hashed_as_the_equal_float32():
    latent = torch.from_numpy(LATENT).to(torch.bfloat16)
    assert hash_state(latent) == hash_state(latent.float()) != KEY


@given(
    latents=arrays.arrays(
        np.float32, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(width=32)
    )
)
def test_keys_of_a_batch_are_the_keys_of_its_rows(latents):
    expected = [xxhash.xxh64(np.ascontiguousarray(row).tobytes()).intdigest() for row in latents]
    assert list(hash_states(latents)) == expected
    assert list(hash_states(torch.from_numpy(latents))) == expected
    assert [hash_state(row) for row in latents] == expected


@pytest.mark.parametrize(
    "batch",
    [np.asfortranarray(LATENT), torch.from_numpy(LATENT.T.copy()).T, LATENT.astype(np.float64), LATENT[::-1][::-1]],
    ids=["fortran order", "transposed tensor", "float64", "reversed twice"],
)
def test_keys_of_a_batch_do_not_depend_on_how_it_is_held(batch):
    assert list(hash_states(batch)) == [xxhash.xxh64(row.tobytes()).intdigest() for row in LATENT]


def test_different_latents_have_different_keys():
    latents = torch.randn(1000, 16)
    assert len(set(hash_states(latents))) == 1000
    nudged = latents[0].clone()
    nudged[7] = torch.nextafter(nudged[7], torch.tensor(9.0))
    assert hash_state(nudged) != hash_state(latents[0])


def test_hashing_leaves_the_latents_alone():
    latents = torch.randn(3, 4)
    before = latents.clone()
    hash_states(latents)
    assert torch.equal(latents, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_key_is_the_same_on_a_gpu():
    assert hash_state(torch.from_numpy(LATENT).cuda()) == KEY
    assert list(hash_states(torch.from_numpy(LATENT).cuda())) == list(hash_states(LATENT))


def with_payload(payload):
    return (np.array([0x7FC00000 | payload], np.uint32)).view(np.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.float32([0.0]), np.float32([-0.0])),
        (with_payload(1), with_payload(2)),
        (np.array([0.1]), np.array([np.nextafter(0.1, 1)])),
        (np.array([1e300]), np.array([1e301])),
        (np.array([0.1]), np.float32([0.1])),
        (np.array([2**60]), np.array([2**60 + 1])),
        (np.array([2**24]), np.array([2**24 + 1])),
        (np.array([-1]), np.array([2**64 - 1], np.uint64)),
    ],
    ids=["zeros", "NaN", "float64", "beyond float32", "rounded", "int64", "int64 just beyond", "uint64"],
)
@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_latents_that_can_be_told_apart_have_two_keys(one, other, as_tensor):
    if as_tensor:
        one, other = torch.from_numpy(one), torch.from_numpy(other)
    assert hash_state(one) != hash_state(other)
    assert list(hash_states(one[None])) != list(hash_states(other[None]))


@pytest.mark.parametrize("kind", [np.float64, np.int64, np.int8, np.uint16, np.bool_, np.float16])
def test_a_wider_type_that_float32_can_hold_is_hashed_as_float32(kind):
    numbers = np.array([[0, 1], [1, 1]], kind)
    assert list(hash_states(numbers)) == list(hash_states(numbers.astype(np.float32)))


def test_a_row_s_key_depends_on_no_other_row():
    rows = np.array([[1.0, 2.0], [0.1, 2.0], [1e300, np.nan], [0.0, -0.0]])
    assert list(hash_states(rows)) == [hash_state(row) for row in rows]
    assert hash_states(rows)[0] == hash_state(np.float32([1, 2]))


def test_the_shape_is_no_part_of_a_key():
    assert hash_state(LATENT) == hash_state(LATENT.reshape(2, 12)) == hash_state(LATENT.ravel())


@pytest.mark.parametrize(
    "latent", [None, "1.0", [1.0, 2.0], (1.0,), 1.0, {"a": 1}], ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize("function", [hash_state, hash_states])
def test_what_is_neither_a_tensor_nor_an_array_is_refused(function, latent):
    with pytest.raises(TypeError, match=f"a latent must be a tensor or an array, got {type(latent).__name__}"):
        function(latent)


@pytest.mark.parametrize(
    "latent",
    [np.ones(2, complex), torch.ones(2, dtype=torch.complex64), np.array(["a"]), np.array([None]), np.ones(2, "M8[s]")],
    ids=["complex", "complex tensor", "text", "objects", "dates"],
)
@pytest.mark.parametrize("function", [hash_state, hash_states])
def test_what_is_no_real_number_is_refused(function, latent):
    with pytest.raises(ValueError, match=r"a latent must be real numbers of at most 64 bits, got "):
        function(latent)


def test_complex_latents_are_told_what_to_do():
    with pytest.raises(ValueError, match="give real and imaginary parts as two channels"):
        hash_state(torch.ones(2, dtype=torch.complex64))


@pytest.mark.parametrize("latents", [np.empty((2, 0), np.float32), torch.empty(3, 1, 0), np.empty((1, 0), np.int64)])
def test_a_latent_of_no_numbers_is_refused(latents):
    with pytest.raises(ValueError, match="empty: all of them would have one key"):
        hash_states(latents)
    with pytest.raises(ValueError, match="empty: all of them would have one key"):
        hash_state(latents[0])


def test_a_batch_of_no_rows_has_no_keys():
    assert list(hash_states(np.empty((0, 4), np.float32))) == list(hash_states(torch.empty(0, 1, 4))) == []
