"""The safetensors container: telling it from a pickle, reading its metadata, and writing it deterministically.

The public library reads the tensors; two things it leaves open are done here. It writes metadata in hash order, so the
same content gives different bytes each time, and a file's digest would pin nothing: `serialise` writes names and
metadata sorted. And it answers anything that is not safetensors with one vague error: `read_metadata` names a pickle
for what it is, before a single byte of it is interpreted, and bounds the header.

Layout: an unsigned 64-bit little-endian header length, that many bytes of JSON, then the tensors' bytes.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

# The largest public checkpoints name a few thousand tensors, about 150 bytes each.
MAX_HEADER_BYTES = 8 * 2**20

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class NotATensorFile(ValueError):
    """The bytes are not a safetensors document, or not one that is safe to read; the text says why."""


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor. dtype: safetensors' name of it."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def read_metadata(stream: BinaryIO) -> dict[str, str]:
    """The metadata of the document in the seekable `stream` (empty when it has none).

    Raises NotATensorFile for a pickle or a PyTorch archive, a header that is too long, cut off or not JSON.
    """
    return _metadata_of(_read_header(stream))


def read_entries(stream: BinaryIO) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors that the document in the seekable `stream` announces, and its metadata; raises as `read_metadata`."""
    header = _read_header(stream)
    entries = {}
    for name, said in header.items():
        if name == _METADATA:
            continue
        try:
            start, end = (int(offset) for offset in said["data_offsets"])
            entries[name] = Entry(str(said["dtype"]), tuple(int(size) for size in said["shape"]), end - start)
        except (KeyError, TypeError, ValueError) as error:
            raise NotATensorFile(f"damaged header: {name}") from error
    return entries, _metadata_of(header)


def _read_header(stream: BinaryIO) -> dict[str, Any]:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(_LENGTH.size + 1)
    if len(head) <= _LENGTH.size:
        raise NotATensorFile(f"not safetensors: {size} bytes")
    (length,) = _LENGTH.unpack_from(head)
    if length > MAX_HEADER_BYTES or head[_LENGTH.size :] != b"{":
        raise NotATensorFile(_what_it_is(head, length))
    if _LENGTH.size + length > size:
        raise NotATensorFile(f"cut off: the header has {length} bytes, the document {size}")
    stream.seek(_LENGTH.size)
    try:
        header = json.loads(stream.read(length))
    except (ValueError, RecursionError) as error:
        raise NotATensorFile(f"damaged header: {error}") from error
    if not isinstance(header, dict):
        raise NotATensorFile("damaged header: expected a JSON object")
    return header


def _metadata_of(header: Mapping[str, Any]) -> dict[str, str]:
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise NotATensorFile("damaged header: the metadata must map text to text")
    return metadata


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The pieces of a document, one tensor at a time; equal content gives equal bytes.

    Raises ValueError for a dtype that the format lacks, a reserved name, or metadata that is not text.
    """
    if not all(isinstance(item, str) for pair in metadata.items() for item in pair):
        raise ValueError("metadata must map text to text")
    if _METADATA in tensors:
        raise ValueError(f"a tensor cannot be called {_METADATA}")
    # Widest first, so that every tensor starts at a multiple of its own element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPE_NAMES:
            raise ValueError(f"{name}: safetensors has no dtype {tensor.dtype}")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield _LENGTH.pack(len(text)) + text
    for name in names:
        yield raw_bytes(tensors[name])


def to_document(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """`serialise` in one piece."""
    document = io.BytesIO()
    for piece in serialise(tensors, metadata):
        document.write(piece)
    return document.getvalue()


def raw_bytes(tensor: Tensor) -> memoryview:
    """The elements in row-major order, little-endian, wherever the tensor lives."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _what_it_is(head: bytes, length: int) -> str:
    if head.startswith(b"PK\x03\x04"):
        return "a PyTorch archive (zip with a pickle inside), which can run code when loaded; convert it to safetensors"
    if head[0] == 0x80 and 1 <= head[1] <= 5:
        return "a pickle, which can run code when loaded; convert it to safetensors"
    if head[_LENGTH.size :] == b"{":
        return f"the header claims {length} bytes; at most {MAX_HEADER_BYTES} are read"
    return "not safetensors"
