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
