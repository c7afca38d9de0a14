"""Blocks: exact, compact, and closed to whatever is not a block."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from teleworld.memory import codec
from teleworld.memory.points import Field, FieldDelta, PointCloud
from teleworld.memory.quantise import RADIUS_CODES, positions_of
from teleworld.world.errors import InvalidInput

HEADER = struct.Struct("<3sBBIQ")


def reseal(block: bytes, payload: bytes, length: int | None = None) -> bytes:
    """A block with another payload and a checksum that fits it."""
    magic, version, kind, _, _ = HEADER.unpack_from(block)
    size = len(payload) if length is None else length
    return HEADER.pack(magic, version, kind, zlib.crc32(payload), size) + zlib.compress(payload, 1)


def payload_of(block: bytes) -> bytes:
    return zlib.decompress(block[HEADER.size :])


@st.composite
def clouds(draw: st.DrawFn) -> PointCloud:
    """Any cloud on the storage grids."""
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    reach = draw(st.sampled_from([10, 40_000, 8_000_000]))
    ids = rng.integers(0, 2**40) + np.cumsum(rng.integers(1, draw(st.sampled_from([2, 1000])), count))
    return PointCloud(
        positions=positions_of(rng.integers(-reach, reach, (count, 3)).astype(np.int32)),
        tangents=rng.integers(-127, 128, (count, 2, 3)).astype(np.int8),
        colours=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        radius=RADIUS_CODES[rng.integers(0, 256, count)],
        confidence=rng.integers(0, 256, count).astype(np.uint8),
        frame=np.sort(rng.integers(0, draw(st.sampled_from([1, 5, 2**31 - 1])), count)).astype(np.int32),
        drift=rng.integers(-127, 128, (count, 2)).astype(np.int8) * np.int8(draw(st.booleans())),
        ids=ids.astype(np.int64),
    )


@given(clouds())
def test_any_cloud_comes_back_bit_for_bit(cloud: PointCloud) -> None:
    assert codec.decode_cloud(codec.encode_cloud(cloud)).same_as(cloud)


def test_deltas_and_fields_come_back_bit_for_bit(walk: list[tuple[FieldDelta, Field]]) -> None:
    rebuilt = Field()
    for delta, field in walk:
        decoded = codec.decode_delta(codec.encode_delta(delta))
        rebuilt = decoded.apply(rebuilt)
        assert rebuilt.same_as(field)
        assert [moved.frame for moved in decoded.dynamic] == [moved.frame for moved in delta.dynamic]
        assert codec.decode_field(codec.encode_field(field)).same_as(field)
    assert any(len(delta.removed) for delta, _ in walk)


def test_a_point_takes_few_bytes(walk: list[tuple[FieldDelta, Field]]) -> None:
    static = walk[-1][1].static
    assert len(codec.encode_cloud(static)) / len(static) < 16
    assert len(payload_of(codec.encode_cloud(static))) / len(static) < 22


def test_worlds_of_the_version_before_are_read_and_later_ones_refused(walk: list[tuple[FieldDelta, Field]]) -> None:
    field = walk[5][1]
    block = codec.encode_field(field)
    assert block[3] == 2 and not field.dynamic.drift.any(), "what stands is written as version 1 wrote it"
    assert codec.decode_field(block[:3] + b"\x01" + block[4:]).same_as(field)
    with pytest.raises(InvalidInput, match="version"):
        codec.decode_field(block[:3] + b"\x03" + block[4:])


def test_the_digest_names_the_content_and_not_its_compression(walk: list[tuple[FieldDelta, Field]]) -> None:
    block = codec.encode_delta(walk[3][0])
    other = block[: HEADER.size] + zlib.compress(payload_of(block), 9)
    assert other != block and codec.digest(other) == codec.digest(block)
    assert codec.digest(codec.encode_delta(walk[4][0])) != codec.digest(block)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.booleans(), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_damaged_blocks_are_refused(walk: list[tuple[FieldDelta, Field]], cut: bool, where: float, flip: int) -> None:
    """Unless the damage says the same in another way, of which deflate has several (a match at another distance)."""
    whole = codec.encode_delta(walk[2][0])
    block = bytearray(whole)
    at = int(where * len(block))
    if cut:
        block = block[:at]
    else:
        block[at] ^= flip
    try:
        codec.decode_delta(bytes(block))
    except InvalidInput:
        return
    assert len(block) == len(whole) and codec.digest(bytes(block)) == codec.digest(whole)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["delta", "field", "cloud"]),
    edits=st.lists(
        st.tuples(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
@example(kind="delta", edits=[(True, 0.265625, 0)])  # a pose with a number whose square overflows
def test_hostile_payloads_with_a_right_checksum_do_no_harm(
    walk: list[tuple[FieldDelta, Field]], kind: str, edits: list[tuple[bool, float, int]]
) -> None:
    delta, field = walk[1]
    block = {
        "delta": lambda: codec.encode_delta(delta),
        "field": lambda: codec.encode_field(field),
        "cloud": lambda: codec.encode_cloud(field.static),
    }[kind]()
    payload = bytearray(payload_of(block))
    for in_header, where, value in edits:
        payload[int(where * (61 if in_header else len(payload)))] = value
    decode = {"delta": codec.decode_delta, "field": codec.decode_field, "cloud": codec.decode_cloud}[kind]
    try:
        decode(reseal(block, bytes(payload)))
    except InvalidInput as error:
        assert error.field.startswith("block")


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(noise: bytes) -> None:
    for decode in (codec.decode_delta, codec.decode_field, codec.decode_cloud):
        with pytest.raises(InvalidInput):
            decode(noise)


def test_a_bomb_is_not_inflated(walk: list[tuple[FieldDelta, Field]]) -> None:
    block = codec.encode_cloud(walk[0][1].static)
    bomb = bytes(1 << 22)
    with pytest.raises(InvalidInput, match="does not end"):
        codec.decode_cloud(reseal(block, bomb, length=100))
    with pytest.raises(InvalidInput, match="at most"):
        codec.decode_cloud(reseal(block, bomb, length=1 << 40))


def test_a_block_of_another_kind_is_refused(walk: list[tuple[FieldDelta, Field]]) -> None:
    with pytest.raises(InvalidInput, match="expected delta"):
        codec.decode_delta(codec.encode_field(walk[0][1]))


def test_a_depth_that_is_no_number_is_refused(walk: list[tuple[FieldDelta, Field]]) -> None:
    delta = walk[0][0]
    depth = delta.view.depth.copy()
    depth[0, 0] = np.nan
    with pytest.raises(InvalidInput):
        codec.decode_delta(codec.encode_delta(replace(delta, view=replace(delta.view, depth=depth))))
