"""The binary form of deltas, whole fields and dynamic clouds, as they lie in the store.

    block   = magic "TWM", version, kind, crc32 and length of the payload | payload, deflated
    points  = count, origin, ... | runs of frames | offsets u16 or u32 [3, P] | tangents i8 [6, P] | colours u8 [3, P]
              | radius u8 [P] | confidence u8 [P] | id gaps u32 [P] (none if the ids are consecutive)
            | drifts i8 [2, P] (none if nothing drifts)

Version 1 knew no drifts; it is read as what stands.

A point takes 17 bytes, 21 with gaps in the ids, 2 more with drifts; deflated, 4 to 9. Everything is exact: points lie on
the grids of `teleworld.memory.quantise` from birth (position error at most 0.49 mm an axis, made once, at observation).

Blocks come from outside the process, so decoding trusts nothing: sizes are checked before anything is allocated, a
payload is never larger than its header says nor than `MAX_PAYLOAD`, and every fault is an InvalidInput.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.points import DynamicPoints, Field, FieldDelta, KeyView, PointCloud
from teleworld.memory.quantise import (
    GRID_PER_METRE,
    MAX_EXTENT_M,
    RADIUS_CODES,
    position_codes,
    positions_of,
    radius_codes,
)
from teleworld.memory.wire import Reader, Writer
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput

MAGIC = b"TWM"
VERSION = 2
READABLE = (1, 2)
MAX_PAYLOAD = 128 << 20
DEFLATE_LEVEL = 1
_HEADER = struct.Struct("<3sBBIQ")  # magic, version, kind, crc32, length
_POINTS = struct.Struct("<IIBBqiii")  # count, runs of frames, wide offsets, flags, first id, origin
_CONSECUTIVE, _DRIFTS = 1, 2  # the flags: ids without gaps; drifts follow
_VIEW = struct.Struct("<iHH")
_LARGEST_ID = 1 << 48
_LARGEST_CODE = int(MAX_EXTENT_M * GRID_PER_METRE)


class Kind(IntEnum):
    """What a block holds."""

    DELTA = 1
    FIELD = 2
    CLOUD = 3


def encode_delta(delta: FieldDelta) -> bytes:
    """The block of a change."""
    out = Writer()
    out.pack(struct.Struct("<qqB"), delta.revision, delta.next_id, len(delta.dynamic))
    _write_points(out, delta.added)
    _write_ids(out, delta.removed)
    _write_ids(out, delta.weakened)
    out.array(delta.confidence)
    for moved in delta.dynamic:
        out.pack(struct.Struct("<i"), moved.frame)
        _write_points(out, moved.points)
    _write_view(out, delta.view)
    return _seal(Kind.DELTA, out)


def decode_delta(block: bytes) -> FieldDelta:
    """The change in a block. Raises InvalidInput(`block`) if it is not one."""
    source = _open(Kind.DELTA, block)
    revision, next_id, moments = source.unpack(struct.Struct("<qqB"))
    added = _read_points(source)
    removed = _read_ids(source)
    weakened = _read_ids(source)
    confidence = source.array(np.uint8, len(weakened))
    dynamic = tuple(DynamicPoints(source.unpack(struct.Struct("<i"))[0], _read_points(source)) for _ in range(moments))
    view = _read_view(source)
    source.finish()
    _check_numbers(revision, next_id, added)
    return FieldDelta(revision, next_id, added, removed, weakened, confidence, dynamic, view)


def encode_field(field: Field) -> bytes:
    """The block of a whole field."""
    out = Writer()
    out.pack(struct.Struct("<qqB"), field.revision, field.next_id, field.view is not None)
    _write_points(out, field.static)
    _write_points(out, field.dynamic)
    if field.view is not None:
        _write_view(out, field.view)
    return _seal(Kind.FIELD, out)


def decode_field(block: bytes) -> Field:
    """The field in a block. Raises InvalidInput(`block`) if it is not one."""
    source = _open(Kind.FIELD, block)
    revision, next_id, has_view = source.unpack(struct.Struct("<qqB"))
    static, dynamic = _read_points(source), _read_points(source)
    view = _read_view(source) if has_view else None
    source.finish()
    _check_numbers(revision, next_id, static)
    return Field(revision, next_id, static, dynamic, view)


def encode_cloud(cloud: PointCloud) -> bytes:
    """The block of a bare cloud."""
    out = Writer()
    _write_points(out, cloud)
    return _seal(Kind.CLOUD, out)


def decode_cloud(block: bytes) -> PointCloud:
    """The cloud in a block. Raises InvalidInput(`block`) if it is not one."""
    source = _open(Kind.CLOUD, block)
    cloud = _read_points(source)
    source.finish()
    return cloud


def digest(block: bytes) -> bytes:
    """32 bytes that name a block's content; the same whatever zlib deflated it."""
    return hashlib.sha256(_payload(block)[1]).digest()


def _seal(kind: Kind, out: Writer) -> bytes:
    payload = out.bytes()
    return _HEADER.pack(MAGIC, VERSION, kind, zlib.crc32(payload), len(payload)) + zlib.compress(payload, DEFLATE_LEVEL)


def _payload(block: bytes) -> tuple[int, bytes]:
    """(kind, raw payload) of a block whose header and checksum are right."""
    if len(block) < _HEADER.size:
        raise InvalidInput("block", "is shorter than its header")
    magic, version, kind, crc, length = _HEADER.unpack_from(block)
    if magic != MAGIC or version not in READABLE:
        raise InvalidInput("block", f"is no memory block of a version up to {VERSION}")
    if not 0 < length <= MAX_PAYLOAD:
        raise InvalidInput("block", f"claims {length} bytes; at most {MAX_PAYLOAD}")
    inflater = zlib.decompressobj()
    try:
        payload = inflater.decompress(memoryview(block)[_HEADER.size :], length)
        rest = inflater.decompress(inflater.unconsumed_tail, 1)  # the end mark may lie behind the last byte asked for
    except zlib.error as error:
        raise InvalidInput("block", "is not deflated data") from error
    if rest or not inflater.eof or inflater.unused_data:
        raise InvalidInput("block", "does not end where it should")
    if len(payload) != length or zlib.crc32(payload) != crc:
        raise InvalidInput("block", "is damaged (length or checksum)")
    return kind, payload


def _open(kind: Kind, block: bytes) -> Reader:
    found, payload = _payload(block)
    if found != kind:
        raise InvalidInput("block", f"is of kind {found}, expected {kind.name.lower()}")
    return Reader(payload)


def _write_points(out: Writer, cloud: PointCloud) -> None:
    codes = position_codes(cloud.positions)
    origin = codes.min(axis=0) if len(cloud) else np.zeros(3, np.int32)
    offsets = codes - origin
    wide = bool(len(cloud)) and int(offsets.max()) > 0xFFFF
    starts = np.flatnonzero(np.diff(cloud.frame, prepend=-1))  # points of one frame lie together
    consecutive = bool((np.diff(cloud.ids) == 1).all())
    drifts = bool(cloud.drift.any())
    flags = _CONSECUTIVE * consecutive + _DRIFTS * drifts
    first = int(cloud.ids[0]) if len(cloud) else 0
    out.pack(_POINTS, len(cloud), len(starts), wide, flags, first, *(int(value) for value in origin))
    out.array(cloud.frame[starts].astype("<i4"))
    out.array(np.diff(starts, append=len(cloud)).astype("<u4"))
    out.array(offsets.T.astype("<u4" if wide else "<u2"))
    out.array(cloud.tangents.reshape(-1, 6).T)
    out.array(cloud.colours.T)
    out.array(radius_codes(cloud.radius))
    out.array(cloud.confidence)
    if not consecutive:
        out.array(_gaps(cloud.ids))
    if drifts:
        out.array(cloud.drift.T)


def _read_points(source: Reader) -> PointCloud:
    count, runs, wide, flags, first, *origin = source.unpack(_POINTS)
    frames, lengths = source.array("<i4", runs), source.array("<u4", runs)
    offsets = source.array("<u4" if wide else "<u2", 3 * count).reshape(3, count)
    if int(lengths.sum(dtype=np.int64)) != count or (runs and frames.min() < 0) or not 0 <= first < _LARGEST_ID:
        raise InvalidInput("block", "has frames or ids out of range")
    limits = offsets.max(axis=1, initial=0).astype(np.int64) + origin
    if max(map(abs, origin)) > _LARGEST_CODE or limits.max() > _LARGEST_CODE:
        raise InvalidInput("block", f"has points beyond {MAX_EXTENT_M:.0f} m")
    codes = offsets.T.astype(np.int32) + np.array(origin, np.int32)
    tangents = source.array(np.int8, 6 * count).reshape(6, count).T
    colours = source.array(np.uint8, 3 * count).reshape(3, count).T
    radius = RADIUS_CODES[source.array(np.uint8, count)]
    confidence = source.array(np.uint8, count)
    ids = first + (np.arange(count) if flags & _CONSECUTIVE else _ungap(source.array("<u4", count)))
    drift = source.array(np.int8, 2 * count).reshape(2, count) if flags & _DRIFTS else np.zeros((2, count), np.int8)
    return PointCloud(
        positions=positions_of(codes),
        tangents=np.ascontiguousarray(tangents).reshape(count, 2, 3),
        colours=np.ascontiguousarray(colours),
        radius=radius,
        confidence=confidence.copy(),
        frame=np.repeat(frames, lengths).astype(np.int32),
        drift=np.ascontiguousarray(drift.T),
        ids=ids.astype(np.int64),
    )


def _write_ids(out: Writer, ids: NDArray[np.int64]) -> None:
    out.pack(struct.Struct("<Iq"), len(ids), int(ids[0]) if len(ids) else 0)
    out.array(_gaps(ids))


def _read_ids(source: Reader) -> NDArray[np.int64]:
    count, first = source.unpack(struct.Struct("<Iq"))
    if not 0 <= first < _LARGEST_ID:
        raise InvalidInput("block", "has ids out of range")
    return (first + _ungap(source.array("<u4", count))).astype(np.int64)


def _gaps(ids: NDArray[np.int64]) -> NDArray[np.uint32]:
    """What lies between each id and the one before it; 0 for the first."""
    gaps = np.diff(ids, prepend=ids[:1])
    if len(gaps) and int(gaps.max()) > 0xFFFFFFFF:
        raise InvalidInput("ids", "lie too far apart")
    return gaps.astype("<u4")


def _ungap(gaps: NDArray[np.uint32]) -> NDArray[np.int64]:
    if len(gaps) and (gaps[0] != 0 or (gaps[1:] == 0).any()):
        raise InvalidInput("block", "has ids that do not ascend")
    return np.cumsum(gaps, dtype=np.int64)


def _write_view(out: Writer, view: KeyView) -> None:
    out.pack(_VIEW, view.frame, *view.depth.shape)
    out.array(view.camera.camera_to_world.astype("<f8"))
    out.array(view.camera.intrinsics.astype("<f8"))
    out.array(view.picture)
    out.array(view.depth.astype("<f2"))


def _read_view(source: Reader) -> KeyView:
    frame, height, width = source.unpack(_VIEW)
    camera_to_world = source.array("<f8", 16).reshape(1, 4, 4)
    intrinsics = source.array("<f8", 4).reshape(1, 4)
    picture = source.array(np.uint8, 3 * height * width).reshape(height, width, 3)
    depth = source.array("<f2", height * width).reshape(height, width)
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise InvalidInput("block", "has a depth that is no distance")
    camera = CameraPath(camera_to_world, intrinsics)
    camera.check("block.view")
    return KeyView(frame, picture, depth, camera)


def _check_numbers(revision: int, next_id: int, points: PointCloud) -> None:
    if revision < -1 or not 0 <= next_id < 2 * _LARGEST_ID or (len(points) and points.ids[-1] >= next_id):
        raise InvalidInput("block", "has a revision or ids out of range")
