"""Records as bytes: a short header, JSON for the scalars, raw little-endian arrays after it. Nothing in it can run.

    "TWR" | version u8 | length of the JSON u32 | JSON | arrays, one after the other, in the order in which the JSON names them

The JSON is {"kind", "fields", "arrays": [[name, dtype, shape], ...]}. What is read back is checked before it is used:
the store may hold what another version wrote, or what an operator restored from somewhere.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from teleworld._proto.types.v1 import model_pb2 as pb
from teleworld.rpc.convert.model import read_spec, write_spec
from teleworld.runtime.records import Binding, Chunk, Fork, Memory, Plan, WorldRecord
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.controls import ALL_KEYS, Control, Keys
from teleworld.world.errors import Internal, InvalidInput
from teleworld.world.spec import WorldSpec
from teleworld.world.timeline import ChainMode
from teleworld.world.walker import Walker
from teleworld.world.work import Prompt

_HEAD = struct.Struct("<3sBI")
_MAGIC, _VERSION = b"TWR", 1
_DTYPES: dict[str, np.dtype[Any]] = {
    "f4": np.dtype("<f4"),
    "f8": np.dtype("<f8"),
    "u1": np.dtype("u1"),
    "i8": np.dtype("<i8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_JSON = json.JSONEncoder(separators=(",", ":"))
_CONTROL = struct.Struct("<QBBQ")
CONTROL_BYTES = _CONTROL.size


def _pack(kind: str, fields: dict[str, Any], **arrays: NDArray[Any]) -> bytes:
    stored = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    listed = [[name, _NAMES[array.dtype], array.shape] for name, array in stored.items()]
    text = _JSON.encode({"kind": kind, "fields": fields, "arrays": listed}).encode()
    values = (array.reshape(-1).view(np.uint8).data for array in stored.values())
    return b"".join([_HEAD.pack(_MAGIC, _VERSION, len(text)), text, *values])


def _unpack(kind: str, data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The fields and arrays. Raises Internal for anything that `_pack` of this kind and version did not write."""
    try:
        magic, version, length = _HEAD.unpack_from(data)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"version {version} is not {_VERSION}")
        described = json.loads(data[_HEAD.size : _HEAD.size + length])
        if described["kind"] != kind:
            raise ValueError(f"it holds a {described['kind']}")
        at, arrays = _HEAD.size + length, {}
        for name, code, shape in described["arrays"]:
            dtype, count = _DTYPES[code], math.prod(shape)
            arrays[name] = np.frombuffer(data, dtype, count, at).reshape(shape).copy()
            at += count * dtype.itemsize
        if at != len(data):
            raise ValueError("it has the wrong length")
        return described["fields"], arrays
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise Internal(f"a stored {kind} cannot be read: {error}") from error


def _walkers_to_array(walkers: tuple[Walker, ...]) -> NDArray[np.float64]:
    return np.array([(w.x, w.y, w.z, w.yaw, w.pitch) for w in walkers], np.float64)


def _array_to_walkers(array: NDArray[np.float64]) -> tuple[Walker, ...]:
    return tuple(Walker(*map(float, row)) for row in array)


def write_prompt(prompt: Prompt) -> bytes:
    return _pack("prompt", {"text": prompt.text}, embedding=prompt.embedding)


def read_prompt(data: bytes) -> Prompt:
    fields, arrays = _unpack("prompt", data)
    return Prompt(fields["text"], arrays["embedding"])


def _read_told(name: str, data: NDArray[Any]) -> WorldSpec:
    """The spec of a model folder. Raises Internal."""
    try:
        return read_spec(pb.WorldSpec.FromString(data.tobytes()), name)
    except (DecodeError, InvalidInput) as error:
        raise Internal(f"the model of a stored world cannot be read: {error}") from error


def write_record(record: WorldRecord) -> bytes:
    fork = record.fork
    fields = {
        "world": record.world,
        "model": record.model,
        "weights": record.weights,
        "seed": record.seed,
        "chain": record.chain.value,
        "prompt": record.prompt.text,
        "created": record.created,
        "request_id": record.request_id,
        "tenant": record.tenant,
        "reanchor": record.reanchor,
        "fork": None if fork is None else [fork.source, fork.chunk, fork.revision, fork.scale],
    }
    walker = _walkers_to_array((record.start,))
    arrays: dict[str, NDArray[Any]] = {"picture": record.picture, "embedding": record.prompt.embedding, "start": walker}
    if record.told is not None:
        arrays["told"] = np.frombuffer(write_spec(record.told).SerializeToString(), np.uint8)
    return _pack("world", fields, **arrays)


def read_record(data: bytes) -> WorldRecord:
    fields, arrays = _unpack("world", data)
    fork = None
    if fields["fork"] is not None:
        source, chunk, revision, scale = fields["fork"]
        fork = Fork(source, chunk, _array_to_walkers(arrays["start"])[0], revision, scale)
    return WorldRecord(
        world=fields["world"],
        model=fields["model"],
        weights=fields["weights"],
        seed=fields["seed"],
        chain=ChainMode(fields["chain"]),
        prompt=Prompt(fields["prompt"], arrays["embedding"]),
        picture=arrays["picture"],
        created=fields["created"],
        request_id=fields["request_id"],
        tenant=fields["tenant"],
        fork=fork,
        reanchor=fields.get("reanchor", False),
        told=_read_told(fields["model"], arrays["told"]) if "told" in arrays else None,
    )


def write_binding(binding: Binding, prompt_digest: str) -> bytes:
    """The binding; its prompt is stored once, under its digest."""
    fields = {
        "segment": binding.segment,
        "keys": [int(keys) for keys in binding.keys],
        "sequences": binding.control_sequences,
        "revision": binding.revision,
        "scale": binding.scale,
        "prompt": prompt_digest,
        "first_chunk": binding.first_chunk,
    }
    return _pack("binding", fields, walkers=_walkers_to_array(binding.walkers))


def read_binding(data: bytes, prompts: dict[str, Prompt]) -> Binding:
    fields, arrays = _unpack("binding", data)
    if fields["prompt"] not in prompts:
        raise Internal("a stored binding names a prompt that is not stored")
    return Binding(
        segment=fields["segment"],
        keys=tuple(Keys(keys) for keys in fields["keys"]),
        control_sequences=tuple(fields["sequences"]),
        walkers=_array_to_walkers(arrays["walkers"]),
        revision=fields["revision"],
        scale=fields["scale"],
        prompt=prompts[fields["prompt"]],
        first_chunk=fields.get("first_chunk"),
    )


def write_plan(plan: Plan) -> bytes:
    fields = {"segment": plan.segment, "last": plan.last}
    return _pack("plan", fields, prefix=plan.prefix, keys=plan.keys, boundary=plan.boundary)


def read_plan(data: bytes) -> Plan:
    fields, arrays = _unpack("plan", data)
    return Plan(fields["segment"], arrays["prefix"], arrays["keys"], arrays["boundary"], fields.get("last"))


def write_memory(memory: Memory) -> bytes:
    room = memory.clearance
    fields = {
        "revision": memory.revision,
        "scale": memory.scale,
        "static": memory.static_points,
        "dynamic": memory.dynamic_points,
        "origin": room.origin,
        "cell": room.cell,
        "extent": room.blocked.shape,
    }
    return _pack("memory", fields, blocked=np.packbits(room.blocked.reshape(-1)))


def read_memory(data: bytes) -> Memory:
    fields, arrays = _unpack("memory", data)
    across, along = fields["extent"]
    bits = np.unpackbits(arrays["blocked"], count=across * along).astype(bool)
    room = Clearance(tuple(fields["origin"]), fields["cell"], bits.reshape(across, along))
    return Memory(fields["revision"], room, fields["scale"], fields["static"], fields["dynamic"])


_CHUNK_FIELDS = ("index", "segment", "latent", "first_frame", "frames", "width", "height", "control_sequence")


def write_chunk(chunk: Chunk) -> bytes:
    fields = {name: getattr(chunk, name) for name in _CHUNK_FIELDS}
    fields |= {"keys": int(chunk.keys), "sha256": chunk.latent_sha256, "stage_ms": chunk.stage_ms}
    return _pack(
        "chunk",
        fields,
        video=np.frombuffer(chunk.video, np.uint8),
        camera_to_world=chunk.path.camera_to_world,
        intrinsics=chunk.path.intrinsics,
    )


def read_chunk(data: bytes) -> Chunk:
    fields, arrays = _unpack("chunk", data)
    return Chunk(
        **{name: fields[name] for name in _CHUNK_FIELDS},
        video=arrays["video"].tobytes(),
        path=CameraPath(arrays["camera_to_world"], arrays["intrinsics"]),
        keys=Keys(fields["keys"]),
        latent_sha256=fields["sha256"],
        stage_ms=fields["stage_ms"],
    )


def write_controls(controls: tuple[Control, ...]) -> bytes:
    """Controls of a fixed size each, so that one more can be appended."""
    return b"".join(
        _CONTROL.pack(control.sequence, control.keys, control.chunk is not None, control.chunk or 0)
        for control in controls
    )


def read_controls(data: bytes) -> tuple[Control, ...]:
    if len(data) % CONTROL_BYTES:
        raise Internal("the stored controls have the wrong length")
    return tuple(
        Control(sequence, Keys(keys) & ALL_KEYS, chunk if scheduled else None)
        for sequence, keys, scheduled, chunk in _CONTROL.iter_unpack(data)
    )
