"""H.264 byte streams (Annex B): finding NAL units and pictures without decoding anything.

Just enough structure for the codec and the MP4 writer: where a NAL unit starts, what it is, and where one picture ends
and the next begins. Slices are not parsed beyond their first bit, so a well-formed walk says nothing about whether
the stream decodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SLICE = 1
IDR_SLICE = 5
SEI = 6
SPS = 7
PPS = 8
DELIMITER = 9

_START_CODE = re.compile(rb"\x00\x00\x01")
START = b"\x00\x00\x00\x01"


@dataclass(frozen=True)
class Nal:
    """One NAL unit: `payload` without start code, its first byte being the NAL header."""

    payload: bytes

    @property
    def kind(self) -> int:
        """nal_unit_type."""
        return self.payload[0] & 0x1F

    @property
    def starts_picture(self) -> bool:
        """True for a slice whose first_mb_in_slice is 0: a leading 1 bit is the exp-Golomb code of zero."""
        return self.kind in (SLICE, IDR_SLICE) and len(self.payload) > 1 and self.payload[1] >= 0x80


@dataclass(frozen=True)
class AccessUnit:
    """The NAL units of one picture, parameter sets and delimiters before it included."""

    nals: tuple[Nal, ...]

    @property
    def keyframe(self) -> bool:
        """True if decoding can start here."""
        return any(nal.kind == IDR_SLICE for nal in self.nals)

    def to_bytes(self) -> bytes:
        """Annex B again, each NAL unit behind a four-byte start code."""
        return b"".join(START + nal.payload for nal in self.nals)


def nal_units(stream: bytes) -> Iterator[Nal]:
    """The NAL units of an Annex B stream. Bytes before the first start code are no part of any and are skipped."""
    starts = [match.end() for match in _START_CODE.finditer(stream)]
    ends = [start - 3 for start in starts[1:]] + [len(stream)]
    for start, end in zip(starts, ends, strict=False):
        # A four-byte start code, or padding, leaves zeros behind the NAL unit before it; a NAL unit never ends in one.
        payload = stream[start:end].rstrip(b"\x00")
        if payload:
            yield Nal(payload)


def access_units(stream: bytes) -> list[AccessUnit]:
    """The pictures of an Annex B stream in decoding order. NAL units after the last picture are dropped."""
    units: list[AccessUnit] = []
    pending: list[Nal] = []
    has_picture = False
    for nal in nal_units(stream):
        leads = nal.kind in (SEI, SPS, PPS, DELIMITER)
        if has_picture and (leads or nal.starts_picture):
            units.append(AccessUnit(tuple(pending)))
            pending, has_picture = [], False
        pending.append(nal)
        has_picture = has_picture or nal.kind in (SLICE, IDR_SLICE)
    if has_picture:
        units.append(AccessUnit(tuple(pending)))
    return units


def parameter_sets(stream: bytes) -> tuple[bytes, ...]:
    """The payloads of the sequence and picture parameter sets, in order of appearance, each once."""
    return tuple(dict.fromkeys(nal.payload for nal in nal_units(stream) if nal.kind in (SPS, PPS)))
