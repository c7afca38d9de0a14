"""Where a walk leads: along recorded cameras, or where held keys lead in the world as it is generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from teleworld.world.camera import CameraPath, Lens
from teleworld.world.collision import Clearance
from teleworld.world.controls import Keys
from teleworld.world.walker import Gait, Walker, path_of, walk


class Route(Protocol):
    """Cameras, frame by frame; the first is the start picture's."""

    @property
    def frames(self) -> int:
        """How many frames follow the start picture."""
        ...

    def cameras(self, shown: int, planned: int, clearance: Clearance, median_depth: float) -> CameraPath:
        """[1 + planned] cameras if the route is so long, of which those up to `shown` stay as they are.

        clearance: around the camera up to which they were asked for before, as far as the memory knows it; median_depth:
        metres, of the start picture.
        """
        ...


@dataclass(frozen=True)
class Recorded:
    """A path [1 + frames] that is known beforehand, and leads through whatever the world puts there."""

    path: CameraPath

    @property
    def frames(self) -> int:
        return len(self.path) - 1

    def cameras(self, shown: int, planned: int, clearance: Clearance, median_depth: float) -> CameraPath:
        return self.path


class Played:
    """Keys held frame by frame, in segments as a session binds them: walls of the world as it is known halt the walker."""

    def __init__(self, keys: Sequence[Keys], gait: Gait, lens: Lens) -> None:
        self._keys = keys
        self._gait = gait
        self._lens = lens
        self._walkers = [Walker()]

    @property
    def frames(self) -> int:
        return len(self._keys)

    def cameras(self, shown: int, planned: int, clearance: Clearance, median_depth: float) -> CameraPath:
        held = list(self._keys[len(self._walkers) - 1 : shown])
        count = len(self._walkers) + len(held)
        held += [held[-1]] * (planned - shown) if held else []
        walked = walk(self._walkers[-1], held, self._gait, self._gait.scale(median_depth), clearance)
        walkers = [*self._walkers, *walked]
        self._walkers = walkers[:count]
        return path_of(walkers, self._lens)
