"""Tensors on the wire: everything valid arrives, nothing invalid gets through, and refusals name the field."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from teleworld._proto.types.v1 import tensor_pb2 as pb
from teleworld.rpc import tensors
from teleworld.rpc.tensors import read_mask, read_tensor, write_mask, write_tensor
from teleworld.world.errors import InvalidInput

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=5)
FLOATS = hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(FLOATS)
def test_floats_arrive_bit_for_bit(array: np.ndarray) -> None:
    message = pb.Tensor.FromString(write_tensor(array, "x").SerializeToString())
    read = read_tensor(message, "x", np.float32, array.shape)
    assert read.dtype == np.float32
    assert read.tobytes() == array.tobytes()


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)))
def test_masks_arrive(mask: np.ndarray) -> None:
    message = pb.BitMask.FromString(write_mask(mask, "x").SerializeToString())
    assert (read_mask(message, "x", mask.shape) == mask).all()


def test_what_is_read_is_a_fresh_aligned_writable_array() -> None:
    message = write_tensor(np.arange(6, dtype=np.float32).reshape(2, 3), "x")
    read = read_tensor(message, "x", np.float32, (2, 3))
    assert read.flags.owndata or read.base.flags.owndata
    assert read.flags.writeable
    assert read.flags.aligned
    assert read.flags.c_contiguous
    read[0, 0] = 99
    assert read_tensor(message, "x", np.float32, (2, 3))[0, 0] == 0


def test_views_and_big_endian_values_are_sent_as_they_read() -> None:
    array = np.arange(24, dtype=">f4").reshape(4, 6)[::-1, ::2]
    assert (read_tensor(write_tensor(array, "x"), "x", np.float32, array.shape) == array).all()


HOSTILE = st.builds(
    lambda dtype, shape, inline: pb.Tensor(dtype=dtype, shape=shape, inline=inline),
    st.integers(0, 9),
    st.lists(st.integers(0, 2**32 - 1), max_size=12),
    st.binary(max_size=64),
)


@settings(max_examples=400)
@given(HOSTILE)
def test_a_hostile_tensor_is_refused_by_name_or_is_what_it_says(message: pb.Tensor) -> None:
    try:
        read = read_tensor(message, "latents", np.float32, (None,) * len(message.shape))
    except InvalidInput as error:
        assert error.field.split(".")[0] == "latents"
    else:
        assert read.nbytes == len(message.inline)
        assert read.shape == tuple(message.shape)
        assert np.isfinite(read).all()


@settings(max_examples=200)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=6), st.binary(max_size=32))
def test_a_hostile_mask_is_refused_by_name_or_is_what_it_says(shape: list[int], packed: bytes) -> None:
    try:
        read = read_mask(pb.BitMask(shape=shape, packed=packed), "mask", (None,) * len(shape))
    except InvalidInput as error:
        assert error.field.split(".")[0] == "mask"
    else:
        assert read.size == math.prod(shape)


def valid() -> pb.Tensor:
    return write_tensor(np.ones((2, 3), np.float32), "x")


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ({"inline": b"\0" * 23}, "x.inline", "24 bytes, got 23"),
        ({"inline": np.full(6, np.nan, np.float32).tobytes()}, "x", "finite"),
        ({"inline": np.full(6, np.inf, np.float32).tobytes()}, "x", "finite"),
        ({"dtype": pb.DATA_TYPE_UINT8}, "x.dtype", "expected float32, got uint8"),
        ({"dtype": 0}, "x.dtype", "data type 0"),
        ({"shape": [3, 2]}, "x.shape", r"expected \[2, \?\], got \[3, 2\]"),
        ({"shape": [2, 2**31]}, "x", "at most"),
        ({"shape": [2, 0]}, "x.shape", "may be 0"),
        ({"shape": [1] * 40}, "x.shape", "at most 8 axes"),
        ({"shared_memory": pb.SharedMemoryRef(name="/etc/passwd", length=24)}, "x.shared_memory", "inline"),
        ({"remote": pb.RemoteRef(endpoint="10.0.0.1:1", length=24)}, "x.remote", "inline"),
    ],
)
def test_each_fault_has_its_own_words(change: dict, field: str, problem: str) -> None:
    message = pb.Tensor(**({"dtype": valid().dtype, "shape": [2, 3]} | change))
    if message.WhichOneof("payload") is None:
        message.inline = valid().inline
    with pytest.raises(InvalidInput, match=problem) as caught:
        read_tensor(message, "x", np.float32, (2, None))
    assert caught.value.field == field


def test_an_absent_tensor_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no payload"):
        read_tensor(pb.Tensor(), "x", np.float32, (None,))


def test_what_cannot_travel_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="float64"):
        write_tensor(np.ones(3), "x")
    monkeypatch.setattr(tensors, "MAX_TENSOR_BYTES", 8)
    with pytest.raises(InvalidInput, match="takes 12 bytes; at most 8"):
        write_tensor(np.ones(3, np.float32), "x")


def test_non_canonical_padding_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unused bits"):
        read_mask(pb.BitMask(shape=[3], packed=b"\x0f"), "mask", (3,))


def test_finite_values_whose_sum_overflows_are_taken() -> None:
    huge = np.full((4, 1000), np.finfo(np.float32).max, np.float32)
    assert np.array_equal(read_tensor(write_tensor(huge, "x"), "x", np.float32, (None, None)), huge)
    mixed = np.array([np.inf, -np.inf, 0.0], np.float32)
    with pytest.raises(InvalidInput, match="finite"):
        read_tensor(write_tensor(mixed, "x"), "x", np.float32, (None,))
