"""Keyboard controls (paper 3.4.1): which keys are held at which frame, and the script language that writes them down.

A control is what the person holds from some moment on. It is *live* (bound to whatever segment is planned next) or
*scheduled* (bound to a chunk number), which makes a run reproducible whatever the speed of the machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

from teleworld.world.errors import InvalidInput


class Keys(IntFlag):
    """Held keys as a bit mask: W A S D move, the arrows turn and tilt. `Keys(0)` is the standby drift."""

    NONE = 0
    W = 1
    A = 2
    S = 4
    D = 8
    LEFT = 16
    RIGHT = 32
    UP = 64
    DOWN = 128


ALL_KEYS = Keys(255)


@dataclass(frozen=True)
class Control:
    """The keys held from now on, or from chunk `chunk` on if it is given. `sequence` grows by one a control."""

    sequence: int
    keys: Keys
    chunk: int | None = None


@dataclass(frozen=True)
class Hold:
    """One item of a key script: these keys, for this many seconds."""

    keys: Keys
    seconds: float


_ITEM = re.compile(r"(?P<keys>[A-Za-z.+]+)\*(?P<seconds>\d+(?:\.\d+)?)s$")
MAX_SCRIPT_SECONDS = 3600.0


def parse_script(script: str) -> tuple[Hold, ...]:
    """Read a key script such as `"W*2s W+RIGHT*1.5s D*0.5s .*1s"`; `.` holds nothing.

    Raises InvalidInput(`keys`) with the position (counted from 1) of the first fault.
    """
    holds: list[Hold] = []
    for item in re.finditer(r"\S+", script):
        at = item.start() + 1
        match = _ITEM.match(item.group())
        if match is None:
            raise InvalidInput(
                "keys", f"position {at}: expected KEYS*SECONDSs, for example W+RIGHT*1.5s, got {item.group()!r}"
            )
        keys = Keys.NONE
        offset = at
        for name in match["keys"].split("+"):
            if name != ".":
                if name.upper() not in Keys.__members__ or name.upper() == "NONE":
                    raise InvalidInput(
                        "keys", f"position {offset}: unknown key {name!r}; known: W A S D LEFT RIGHT UP DOWN ."
                    )
                keys |= Keys[name.upper()]
            offset += len(name) + 1
        seconds = float(match["seconds"])
        if seconds <= 0:
            raise InvalidInput("keys", f"position {at}: the duration must be more than 0 seconds")
        holds.append(Hold(keys, seconds))
    if not holds:
        raise InvalidInput("keys", "position 1: the script is empty")
    if (total := sum(hold.seconds for hold in holds)) > MAX_SCRIPT_SECONDS:
        raise InvalidInput("keys", f"the script lasts {total:.0f} s; at most {MAX_SCRIPT_SECONDS:.0f} s")
    return tuple(holds)


def keys_per_frame(holds: Sequence[Hold], fps: float) -> tuple[Keys, ...]:
    """The keys held at each frame; boundaries are rounded to the nearest frame, so that no time is lost in sum."""
    frames: list[Keys] = []
    clock = 0.0
    for hold in holds:
        clock += hold.seconds
        frames.extend([hold.keys] * (round(clock * fps + 1e-6) - len(frames)))
    return tuple(frames)


def schedule(frames: Sequence[Keys], frames_per_chunk: int) -> tuple[Control, ...]:
    """Controls bound to chunks that follow `frames`, from chunk 1 on (chunk 0 is the start picture).

    A chunk takes the keys of its first frame.
    """
    controls: list[Control] = []
    for chunk, first in enumerate(range(0, len(frames), frames_per_chunk), start=1):
        if not controls or frames[first] != controls[-1].keys:
            controls.append(Control(sequence=len(controls) + 1, keys=frames[first], chunk=chunk))
    return tuple(controls)
