"""Arrays on the wire: numpy <-> `teleworld.types.v1.Tensor` and `BitMask`.

What arrives is not trusted: payload kind, dtype, shape and byte length are checked before anything is allocated, values
are checked to be finite, and each refusal is an `InvalidInput` that names the field. The array that a reader gets is a
fresh, aligned, writable copy that shares nothing with the message. Values travel inside of the message, or, where
`teleworld.rpc.link` says that the peer sees our memory, large ones through that. Who only hands a tensor on reads it `held`:
it stays there, and its next reader is told where.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from teleworld._proto.types.v1 import tensor_pb2 as pb
from teleworld.rpc import link
from teleworld.rpc.held import Held, Kept
from teleworld.rpc.segments import Segments
from teleworld.world.errors import InvalidInput

MAX_TENSOR_BYTES = 62 * 2**20
"""Largest payload: under the channel's message limit, so that the refusal names a field and not a message."""
MAX_RANK = 8

_DTYPES: dict[np.dtype[Any], pb.DataType.ValueType] = {
    np.dtype("<f4"): pb.DATA_TYPE_FLOAT32,
    np.dtype("u1"): pb.DATA_TYPE_UINT8,
}
_WIRE: dict[int, np.dtype[Any]] = {number: dtype for dtype, number in _DTYPES.items()}

Shape = Sequence[int | None]
"""Expected extents, outermost first; None leaves one free."""


def write_tensor(array: NDArray[Any] | Held, field: str) -> pb.Tensor:
    """The message of a float32 or uint8 array of any shape. Raises InvalidInput naming `field`."""
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _DTYPES:
        raise InvalidInput(field, f"expected float32 or uint8, got {array.dtype}")
    _check_extents(array.shape, field)
    _check_size(array.nbytes, field)
    route = link.route()
    if isinstance(array, Held):
        if route is not None and array.nbytes > route.inline and route.tell(array.kept):
            reference = pb.SharedMemoryRef(
                namespace=route.segments.namespace, name=array.kept.name, length=array.nbytes, offsets=array.offsets
            )
            return pb.Tensor(dtype=_DTYPES[dtype], shape=array.shape, shared_memory=reference)
        array = np.asarray(array)
    values = array.astype(dtype, copy=False)
    if route is not None and (name := route.send(values)) is not None:
        reference = pb.SharedMemoryRef(namespace=route.segments.namespace, name=name, length=array.nbytes)
        return pb.Tensor(dtype=_DTYPES[dtype], shape=array.shape, shared_memory=reference)
    return pb.Tensor(dtype=_DTYPES[dtype], shape=array.shape, inline=values.tobytes())


def read_tensor(
    message: pb.Tensor, field: str, dtype: type[np.generic], shape: Shape, *, finite: bool = True, held: bool = False
) -> NDArray[Any]:
    """A fresh array of exactly `dtype` whose shape fits `shape`; floats must be finite unless `finite` is False.

    held: what came through shared memory may stay there, as a `Held`, whose values nobody has looked at yet.
    Raises InvalidInput naming `field`.
    """
    payload = message.WhichOneof("payload")
    if payload is None:
        raise InvalidInput(field, "the tensor has no payload")
    if payload == "remote" or (payload == "shared_memory" and link.route() is None):
        raise InvalidInput(f"{field}.{payload}", "from this peer only inline payloads are taken")
    wire = _WIRE.get(message.dtype)
    if wire is None or wire != np.dtype(dtype).newbyteorder("<"):
        raise InvalidInput(f"{field}.dtype", f"expected {np.dtype(dtype).name}, got {_dtype_name(message.dtype)}")
    extents = tuple(message.shape)
    _check_extents(extents, field)
    if len(extents) != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, extents, strict=True)
    ):
        raise InvalidInput(f"{field}.shape", f"expected {_show(shape)}, got {_show(extents)}")
    length = math.prod(extents) * wire.itemsize
    _check_size(length, field)
    given = message.shared_memory.length if payload == "shared_memory" else len(message.inline)
    if given != length:
        raise InvalidInput(f"{field}.{payload}", f"{_show(extents)} takes {length} bytes, got {given}")
    if held and payload == "shared_memory" and (kept := _keep(message.shared_memory, f"{field}.shared_memory")):
        return cast(NDArray[Any], Held.whole(kept, wire, extents))
    if payload == "shared_memory":
        array = _fetch(message.shared_memory, extents, f"{field}.shared_memory").view(wire).reshape(extents)
        array = array.astype(dtype, copy=False)
    else:
        array = np.frombuffer(message.inline, dtype=wire).reshape(extents).astype(dtype, copy=True)
    if finite and wire.kind == "f" and not _is_finite(array):
        raise InvalidInput(field, "every value must be finite")
    return array


def write_mask(mask: NDArray[np.bool_], field: str) -> pb.BitMask:
    """The message of a boolean array of any shape, empty ones included. Raises InvalidInput naming `field`."""
    if mask.dtype != np.bool_:
        raise InvalidInput(field, f"expected bool, got {mask.dtype}")
    packed = np.packbits(mask.reshape(-1), bitorder="little")
    _check_size(packed.nbytes, field)
    return pb.BitMask(shape=mask.shape, packed=packed.tobytes())


def read_mask(message: pb.BitMask, field: str, shape: Shape) -> NDArray[np.bool_]:
    """A fresh bool array whose shape fits `shape`. Raises InvalidInput naming `field`."""
    extents = tuple(message.shape)
    if len(extents) != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, extents, strict=True)
    ):
        raise InvalidInput(f"{field}.shape", f"expected {_show(shape)}, got {_show(extents)}")
    # numpy counts an empty axis as one when it looks for overflow, so an empty mask may not hide huge extents either.
    _check_size(math.prod(max(extent, 1) for extent in extents) // 8, field)
    count = math.prod(extents)
    length = -(-count // 8)
    if len(message.packed) != length:
        raise InvalidInput(f"{field}.packed", f"{_show(extents)} takes {length} bytes, got {len(message.packed)}")
    bits = np.unpackbits(np.frombuffer(message.packed, dtype=np.uint8), bitorder="little")
    if bits[count:].any():
        raise InvalidInput(f"{field}.packed", "the unused bits of the last byte must be 0")
    return bits[:count].astype(np.bool_).reshape(extents)


def _fetch(reference: pb.SharedMemoryRef, extents: Sequence[int], field: str) -> NDArray[np.uint8]:
    ours = _seen(reference, field)
    if reference.offsets:
        if len(reference.offsets) != extents[0]:
            raise InvalidInput(f"{field}.offsets", f"expected one for each of the {extents[0]} rows")
        return ours.peek(reference.name, reference.offsets, reference.length, field)
    return ours.take(reference.name, reference.length, field)


def _keep(reference: pb.SharedMemoryRef, field: str) -> Kept | None:
    return None if reference.offsets else _seen(reference, field).keep(reference.name, reference.length, field)


def _seen(reference: pb.SharedMemoryRef, field: str) -> Segments:
    route = link.route()
    if route is None or reference.namespace != route.segments.namespace:
        raise InvalidInput(f"{field}.namespace", "is not the memory that we see")
    return route.segments


def _is_finite(array: NDArray[Any]) -> bool:
    """Whether every value is: the sum then is too, unless it overflows, and it is found without another array."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduce(array, axis=None)
    return bool(np.isfinite(total) or np.isfinite(array).all())


def _check_extents(extents: Sequence[int], field: str) -> None:
    if len(extents) > MAX_RANK:
        raise InvalidInput(f"{field}.shape", f"at most {MAX_RANK} axes, got {len(extents)}")
    if 0 in extents:
        raise InvalidInput(f"{field}.shape", f"no extent may be 0, got {_show(extents)}")


def _check_size(length: int, field: str) -> None:
    if length > MAX_TENSOR_BYTES:
        raise InvalidInput(field, f"takes {length} bytes; at most {MAX_TENSOR_BYTES}")


def _show(shape: Shape) -> str:
    shown = ["?" if extent is None else str(extent) for extent in shape[: MAX_RANK + 1]]
    return f"[{', '.join(shown)}]"


def _dtype_name(number: int) -> str:
    return _WIRE[number].name if number in _WIRE else f"data type {number}"
