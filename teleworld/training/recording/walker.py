"""How the recorded player moves: keys held for a while, at a speed chosen for each hold.

The pictures must show every combination of keys a person can hold, so a walk is a chain of random holds. Two
instincts keep it out of corners: it turns to the open side before a near wall, and turns away when it does not get
on. A `Returner` walks out and then back along its own path, to film places twice.

Walkers draw all chance from the generator they are given: the same generator and the same sights give the same walk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from teleworld.training.recording.engine import FRAMES_PER_SECOND
from teleworld.world.controls import Keys

PITCH_LIMIT = float(np.radians(15.0))
DRIFT = 0.02
NEAR_WALL = 2.0


@dataclass(frozen=True)
class Sight:
    """What a walker knows of the present frame.

    Attributes:
        place: (X, Z) in metres.
        yaw: radians, right-positive from +Z.
        pitch: radians, positive upward.
        openness: median depth in metres of the left, middle and right third of the picture.
    """

    place: tuple[float, float]
    yaw: float
    pitch: float
    openness: tuple[float, float, float]


@dataclass(frozen=True)
class Step:
    """Controls over one frame: the keys, metres forward and right, radians right and up, and whether to open doors."""

    keys: Keys
    forward: float = 0.0
    right: float = 0.0
    turn: float = 0.0
    tilt: float = 0.0
    use: bool = False


class Walker(Protocol):
    """Anything that says what to press next."""

    def step(self, sight: Sight) -> Step:
        """The controls that lead from the present frame to the next."""


# Sums of weights need not be 1. Turning and tilting keys are completed by a random direction below.
_HOLDS: tuple[tuple[float, Keys, str], ...] = (
    (0.36, Keys.W, ""),
    (0.28, Keys.W, "turn"),
    (0.08, Keys.NONE, "turn"),
    (0.04, Keys.A, ""),
    (0.04, Keys.D, ""),
    (0.02, Keys.A, "turn"),
    (0.02, Keys.D, "turn"),
    (0.02, Keys.W | Keys.A, ""),
    (0.02, Keys.W | Keys.D, ""),
    (0.05, Keys.S, ""),
    (0.02, Keys.S, "turn"),
    (0.03, Keys.NONE, "tilt"),
    (0.04, Keys.W, "tilt"),
    (0.08, Keys.NONE, ""),
)


def step_of(keys: Keys, speed: float, turn: float, tilt: float) -> Step:
    """The step that a set of held keys means.

    Args:
        keys: what is held; nothing at all is the standby drift.
        speed: metres a frame of W; strafing and backing are slower.
        turn: radians a frame of LEFT or RIGHT.
        tilt: radians a frame of UP or DOWN.
    """
    if not keys:
        return Step(keys, forward=DRIFT)
    held: Callable[[Keys], float] = lambda key: float(bool(keys & key))  # noqa: E731
    return Step(
        keys,
        forward=speed * (held(Keys.W) - 0.7 * held(Keys.S)),
        right=0.7 * speed * (held(Keys.D) - held(Keys.A)),
        turn=turn * (held(Keys.RIGHT) - held(Keys.LEFT)),
        tilt=tilt * (held(Keys.UP) - held(Keys.DOWN)),
    )


class Wanderer:
    """Random holds with the two instincts. With `spin`, the walk opens with a full turn in place."""

    def __init__(self, rng: np.random.Generator, spin: bool) -> None:
        self._rng = rng
        self._left = 0
        self._hold = Step(Keys.NONE)
        self._stalled = 0
        self._last_place: tuple[float, float] | None = None
        if spin:
            self._begin_spin()

    def _begin_spin(self) -> None:
        turn = float(np.radians(self._rng.uniform(2.5, 4.0)))
        key = Keys.RIGHT if self._rng.random() < 0.5 else Keys.LEFT
        self._hold, self._left = step_of(key, 0.0, turn, 0.0), int(np.ceil(2 * np.pi / turn))

    def step(self, sight: Sight) -> Step:
        """The controls that lead from the present frame to the next."""
        use = False
        if self._blocked(sight):
            use = True
            self._turn_away(sight, self._rng.uniform(0.4, 1.0), Keys.NONE)
        elif self._hold.forward > 2 * DRIFT and sight.openness[1] < NEAR_WALL and self._rng.random() < 0.4:
            self._turn_away(sight, self._rng.uniform(0.3, 0.8), Keys.W if self._rng.random() < 0.7 else Keys.NONE)
        if self._left <= 0:
            self._draw(sight)
        self._left -= 1
        self._last_place = sight.place
        step = self._hold
        if step.tilt and abs(sight.pitch + step.tilt) > PITCH_LIMIT:
            step = replace(step, tilt=0.0)
        return replace(step, use=use)

    def _blocked(self, sight: Sight) -> bool:
        wanted = np.hypot(self._hold.forward, self._hold.right)
        if self._last_place is None or wanted <= 2 * DRIFT:
            self._stalled = 0
            return False
        moved = np.hypot(sight.place[0] - self._last_place[0], sight.place[1] - self._last_place[1])
        self._stalled = self._stalled + 1 if moved < 0.3 * wanted else 0
        if self._stalled < 4:
            return False
        self._stalled = 0
        return True

    def _turn_away(self, sight: Sight, seconds: float, walking: Keys) -> None:
        key = Keys.LEFT if sight.openness[0] > sight.openness[2] else Keys.RIGHT
        speed, turn = self._rng.uniform(0.1, 0.25), np.radians(self._rng.uniform(2.5, 4.0))
        self._hold = step_of(walking | key, float(speed), float(turn), 0.0)
        self._left = round(seconds * FRAMES_PER_SECOND)

    def _draw(self, sight: Sight) -> None:
        weights = np.array([weight for weight, _, _ in _HOLDS])
        _, keys, extra = _HOLDS[self._rng.choice(len(_HOLDS), p=weights / weights.sum())]
        coin = self._rng.random() < 0.5
        if extra == "turn":
            keys |= Keys.LEFT if coin else Keys.RIGHT
        elif extra == "tilt":
            level = abs(sight.pitch) > np.radians(4.0)
            keys |= (Keys.DOWN if sight.pitch > 0 else Keys.UP) if level else (Keys.UP if coin else Keys.DOWN)
        elif abs(sight.pitch) > np.radians(6.0) and coin:
            keys |= Keys.DOWN if sight.pitch > 0 else Keys.UP
        speed = self._rng.uniform(0.1, 0.35)
        turn, tilt = np.radians(self._rng.uniform(1.0, 4.0)), np.radians(self._rng.uniform(0.5, 1.5))
        self._hold = step_of(keys, float(speed), float(turn), float(tilt))
        self._left = round(self._rng.uniform(0.3, 2.5) * FRAMES_PER_SECOND)


class Returner:
    """Wanders out for `out_frames`, then walks its own path backwards, and wanders again from the start."""

    def __init__(self, rng: np.random.Generator, out_frames: int) -> None:
        self._wanderer = Wanderer(rng, spin=True)
        self._out_frames = out_frames
        self._path: list[tuple[float, float]] = []
        self._frame = 0
        self._speed = float(rng.uniform(0.2, 0.3))
        self._stalled = 0

    def step(self, sight: Sight) -> Step:
        """The controls that lead from the present frame to the next."""
        self._frame += 1
        if self._frame <= self._out_frames:
            if not self._path or np.hypot(sight.place[0] - self._path[-1][0], sight.place[1] - self._path[-1][1]) > 0.5:
                self._path.append(sight.place)
            return self._wanderer.step(sight)
        while self._path:
            dx, dz = self._path[-1][0] - sight.place[0], self._path[-1][1] - sight.place[1]
            self._stalled += 1
            if np.hypot(dx, dz) > 0.6 and self._stalled < 40:
                return self._towards(float(np.arctan2(dx, dz)) - sight.yaw, sight.pitch)
            self._path.pop()
            self._stalled = 0
        return self._wanderer.step(sight)

    def _towards(self, error: float, pitch: float) -> Step:
        error = float((error + np.pi) % (2 * np.pi) - np.pi)
        turn = float(min(abs(error), np.radians(4.0)))
        keys = Keys.NONE if abs(error) > np.radians(30) else Keys.W
        if turn > np.radians(0.5):
            keys |= Keys.RIGHT if error > 0 else Keys.LEFT
        if abs(pitch) > np.radians(1.0):
            keys |= Keys.DOWN if pitch > 0 else Keys.UP
        return step_of(keys, self._speed, turn, float(np.radians(1.0)))
