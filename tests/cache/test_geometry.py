"""Shapes, and the window of a context that slides."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.geometry import GEOMETRIES, TOKENS_PER_STEP, Geometry

KIB, MIB = 1024, 1024**2

# SPEC 1, column by column; bytes of an entry as printed there.
SPEC_TABLE = {
    "cartpole": (2, 2, 64, 8, 8, 25, "rotary", 8 * KIB),
    "lunarlander": (4, 4, 256, 8, 8, 50, "absolute", 64 * KIB),
    "pong": (2, 8, 768, 8, 8, 50, "absolute", 96 * KIB),
    "visual-match": (4, 4, 256, 162, 8, 50, "absolute", round(1.265625 * MIB)),
    "multitask": (8, 8, 768, 8, 8, 50, "absolute", 384 * KIB),
    "wide": (8, 8, 768, 40, 8, 50, "absolute", round(1.875 * MIB)),
}

SIZES = ("num_layers", "num_heads", "embed_dim", "context_length", "env_num", "num_simulations")


@pytest.mark.parametrize("name", SPEC_TABLE)
def test_the_named_geometries_are_those_of_the_contract(name):
    *columns, entry_bytes = SPEC_TABLE[name]
    assert GEOMETRIES[name] == Geometry(name, *columns)
    assert GEOMETRIES[name].entry_bytes() == entry_bytes


def test_there_are_no_other_named_geometries():
    assert list(GEOMETRIES) == list(SPEC_TABLE)


def test_entry_bytes_follow_the_element_size():
    assert GEOMETRIES["pong"].entry_bytes(itemsize=2) == 48 * KIB


def test_the_heads_share_the_embedding():
    assert Geometry(num_heads=8, embed_dim=768).head_dim == 96


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", None, True])
def test_a_size_must_be_a_positive_integer(field, value):
    with pytest.raises(ValueError, match=field):
        Geometry(**{field: value})


def test_the_embedding_must_divide_into_heads():
    with pytest.raises(ValueError, match="embed_dim 64 is not a multiple of num_heads 3"):
        Geometry(num_heads=3, embed_dim=64)


def test_unknown_positions_name_the_choices():
    with pytest.raises(ValueError, match=r"rotary.*absolute.*relative"):
        Geometry(positions="relative")


def test_a_geometry_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        GEOMETRIES["pong"].env_num = 9


@given(context_length=st.integers(3, 200), data=st.data())
def test_what_is_stored_leaves_room_for_one_more_step(context_length, data):
    geometry = Geometry(context_length=context_length)
    size = data.draw(st.integers(1, context_length))
    first, count = geometry.window(size)
    assert 0 <= first <= first + count <= size
    assert count + TOKENS_PER_STEP <= context_length
    assert (first, count) == ((2, context_length - 3) if size >= context_length - 1 else (0, size))


@pytest.mark.parametrize(
    ("context_length", "size", "window"),
    [
        (8, 6, (0, 6)),
        (8, 7, (2, 5)),
        (8, 8, (2, 5)),  # the token at position 7 is dropped, too
        (7, 5, (0, 5)),
        (7, 6, (2, 4)),
        (3, 1, (0, 1)),
        (3, 2, (2, 0)),
    ],
)
def test_windows_written_out(context_length, size, window):
    geometry = Geometry(context_length=context_length)
    assert geometry.window(size) == window
    assert geometry.slid_size == context_length - 3


@pytest.mark.parametrize(("context_length", "keeps"), [(1, False), (2, False), (3, True), (8, True)])
def test_up_to_two_tokens_of_context_keep_no_past(context_length, keeps):
    assert Geometry(context_length=context_length).keeps_past is keeps


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_a_geometry_survives_its_dict(geometry):
    assert Geometry.from_dict(geometry.to_dict()) == geometry


def test_a_dict_with_other_fields_names_them():
    values = GEOMETRIES["pong"].to_dict()
    values["layers"] = values.pop("num_layers")
    with pytest.raises(ValueError, match=r"missing fields \['num_layers'\].*unknown fields \['layers'\]"):
        Geometry.from_dict(values)


def test_a_dict_with_a_bad_value_names_its_field():
    with pytest.raises(ValueError, match="env_num"):
        Geometry.from_dict(GEOMETRIES["pong"].to_dict() | {"env_num": "8"})


def test_a_changed_copy_is_checked_again():
    with pytest.raises(ValueError, match="num_heads"):
        replace(GEOMETRIES["pong"], num_heads=7)
