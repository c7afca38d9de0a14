"""Messages of the public API that have a counterpart in the domain: held keys and controls."""

from __future__ import annotations

from collections.abc import Iterable

from teleworld._proto.gateway.v1 import stream_pb2 as pb
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import InvalidInput

_KEYS = {
    pb.KEY_W: Keys.W,
    pb.KEY_A: Keys.A,
    pb.KEY_S: Keys.S,
    pb.KEY_D: Keys.D,
    pb.KEY_LEFT: Keys.LEFT,
    pb.KEY_RIGHT: Keys.RIGHT,
    pb.KEY_UP: Keys.UP,
    pb.KEY_DOWN: Keys.DOWN,
}


def write_keys(keys: Keys) -> list[pb.Key.ValueType]:
    return [number for number, key in _KEYS.items() if key in keys]


def read_keys(numbers: Iterable[int], field: str = "keys") -> Keys:
    """The held keys; a key named twice is held once. Raises InvalidInput for an unknown key."""
    held = Keys.NONE
    for position, number in enumerate(numbers):
        key = next((key for known, key in _KEYS.items() if known == number), None)
        if key is None:
            raise InvalidInput(f"{field}[{position}]", f"unknown key {number}")
        held |= key
    return held


def write_control(control: Control) -> pb.Control:
    return pb.Control(keys=write_keys(control.keys), sequence=control.sequence, chunk=control.chunk)


def read_control(message: pb.Control, field: str = "control") -> Control:
    """The control. Raises InvalidInput for an unknown key or a sequence number of 0, which means none."""
    if message.sequence == 0:
        raise InvalidInput(f"{field}.sequence", "must be 1 or more")
    chunk = message.chunk if message.HasField("chunk") else None
    return Control(message.sequence, read_keys(message.keys, f"{field}.keys"), chunk)
