"""Where a moving thing is by now, though nobody has looked at it since (paper 3.3.2: what moves is kept by time).

A body is a patch of connected moving pixels of one key frame. Its points keep the place where they were seen, and how far they
drift a frame along the ground; where they are later follows from both and from the time, so that nothing stored changes while
a body is out of sight. The drift comes from the same body in an earlier key frame: near, about as large, of about the same
colour, and the nearest of all such pairs.

What a measured depth says about motion towards or away from the camera is poor, since its error differs from frame to frame;
what the picture says about motion across the view is good. So each of the two parts is believed by how far it exceeds its
error, and too short a way counts as standing. A body of which only a part is seen, cut off by the picture's side or covered,
has no known middle: it goes on as it did, its unseen part with it; so does one that was seen a moment ago, which tells too
little. One right in front of the eye stands, and none comes as near: who has reached somebody steps about him.

Nobody walks straight on for long. Each frame a body makes 0.85 of the step before, so that it goes less than seven first steps
in all, or as many as end at the next wall. docs/quality.md compares this with standing, on recorded walks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.clearance import free_way
from teleworld.memory.compiled import compiled
from teleworld.memory.points import PointCloud
from teleworld.memory.quantise import DRIFT_PER_METRE, position_codes, positions_of

BODY_BITS = 24  # of an id of a moving point: its number within the body; the body's number lies above
LASTING = 64  # frames after which nothing moves any more
_LAST_FRAME = 2**31 - 1
_FADING = 0.85
_GROUND = [0, 2]  # x and z; y points down


def _reaches() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(step, way) [LASTING + 1] after so many frames, in first steps; by products alone, which are the same everywhere."""
    step, way = np.ones(LASTING + 1), np.zeros(LASTING + 1)
    for frame in range(LASTING):
        step[frame + 1], way[frame + 1] = step[frame] * _FADING, way[frame] + step[frame]
    return step, way


_STEP, _WAY = _reaches()
_METRES = (_WAY / DRIFT_PER_METRE).astype(np.float32)  # of a drift of one, after so many frames


@dataclass(frozen=True)
class MotionPolicy:
    """When two bodies are the same, and when one moves.

    soonest, patience: frames between two sights that tell a motion, at least and at most. fastest: metres a frame. least:
    metres between the sights, below which a body stands. alike: mean difference of the mean colours at most. larger: ratio
    of the areas at most. pixels: of a body at least. across, along: error of a place as a share of its distance, across the
    view and along it. near: metres from the eye within which a body stands, and up to which others come.
    """

    soonest: int = 6
    patience: int = 24
    fastest: float = 0.35
    least: float = 0.4
    alike: float = 20.0
    larger: float = 1.6
    pixels: int = 12
    across: float = 0.04
    along: float = 0.3
    near: float = 2.0


DEFAULT_MOTION = MotionPolicy()


def places(cloud: PointCloud, now: int) -> NDArray[np.float32]:
    """Where the points are in the global pixel frame `now`, any number: float32 [P, 3] metres."""
    return _moved(cloud.positions, cloud.drift, cloud.frame, min(now, _LAST_FRAME), _METRES)


def gathered(cloud: PointCloud, body: NDArray[np.int32]) -> PointCloud:
    """The points sorted by `body` [P], the number of each one's body, with ids that say it."""
    order = np.argsort(body, kind="stable")
    ids = (body[order].astype(np.int64) << BODY_BITS) + np.arange(len(order))
    return replace(cloud.select(order), ids=ids)


def numbered(cloud: PointCloud) -> PointCloud:
    """The points of bodies that were seen one after the other, with ids that number the bodies from 0 on."""
    body = cloud.ids >> BODY_BITS
    other = (np.diff(body, prepend=-1) != 0) | (np.diff(cloud.frame, prepend=-1) != 0)
    start = np.flatnonzero(other)
    inside = np.arange(len(cloud)) - np.repeat(start, np.diff(start, append=len(cloud)))
    return replace(cloud, ids=((np.cumsum(other, dtype=np.int64) - 1) << BODY_BITS) + inside)


@dataclass(frozen=True, eq=False)
class _Bodies:
    """B bodies of a cloud: the middle [B, 3] in metres and where it is now, mean colour [B, 3], area [B] in square metres, how
    many points, and the last sight's frame and drift [B, 2]. All sums are of whole numbers, whose order does not matter."""

    middle: NDArray[np.float64]
    place: NDArray[np.float64]
    colour: NDArray[np.float64]
    area: NDArray[np.float64]
    count: NDArray[np.int64]
    frame: NDArray[np.int64]
    drift: NDArray[np.float64]

    @classmethod
    def of(cls, cloud: PointCloud, now: int) -> _Bodies:
        """The bodies of a cloud that is not empty, in its order."""
        start = _starts(cloud)
        count = np.diff(start, append=len(cloud))
        frame, drift = cloud.frame[start].astype(np.int64), cloud.drift[start].astype(np.float64)
        sums = np.add.reduceat(position_codes(cloud.positions).astype(np.int64), start, axis=0)
        middle = positions_of(np.rint(sums / count[:, None]).astype(np.int32)).astype(np.float64)
        place = middle.copy()
        place[:, _GROUND] += drift * _METRES[np.clip(now - frame, 0, LASTING)].astype(np.float64)[:, None]
        # Points of one body are about as far and so about as large; the first one's footprint stands for all.
        return cls(
            middle,
            place,
            np.add.reduceat(cloud.colours.astype(np.int64), start, axis=0) / count[:, None],
            count * cloud.radius[start].astype(np.float64) ** 2,
            count,
            frame,
            drift,
        )


def followed(
    seen: PointCloud,
    before: PointCloud,
    cut: NDArray[np.bool_],
    eye: NDArray[np.float64],
    now: int,
    policy: MotionPolicy = DEFAULT_MOTION,
) -> tuple[PointCloud, NDArray[np.bool_]]:
    """(what key frame `now` sees moving, with its drift; bool [Q]: the points of `before` whose body it sees elsewhere).

    seen, before: points by body, as `numbered` makes them. cut: bool [P], bodies that the picture's sides cut off. eye: [3],
    the camera's place in metres.
    """
    if not len(seen) or not len(before):
        return seen, np.zeros(len(before), bool)
    new, old = _Bodies.of(seen, now), _Bodies.of(before, now)
    drift = np.zeros((len(new.count), 2), np.float64)
    elsewhere = np.zeros(len(old.count), bool)
    part = (
        (new.area[:, None] * policy.larger < old.area) | cut[_starts(seen), None] | (now - old.frame < policy.soonest)
    )
    apart = _distances(new.middle, old.place)
    for i, j in _pairs(new, old, part, apart, now, policy):
        elapsed = int(now - old.frame[j])
        if part[i, j]:
            drift[i] = old.drift[j] * _STEP[min(elapsed, LASTING)]
        else:
            drift[i] = _drift(new.middle[i] - old.middle[j], new.middle[i] - eye, elapsed, policy) * DRIFT_PER_METRE
        elsewhere[j] = apart[i, j] > policy.least
    codes = np.clip(np.rint(drift), -127, 127).astype(np.int8)
    return replace(seen, drift=np.repeat(codes, new.count, axis=0)), np.repeat(elsewhere, old.count)


def halted(seen: PointCloud, static: PointCloud) -> PointCloud:
    """The points by body, each as much slower as makes it end in front of the static points in its way."""
    if not seen.drift.any():
        return seen
    bodies = _Bodies.of(seen, 0)
    drift = bodies.drift
    for body in np.flatnonzero(drift.any(axis=1)):
        way = drift[body] / (DRIFT_PER_METRE * (1 - _FADING))
        free = free_way(static, bodies.middle[body], way)
        drift[body] = np.trunc(drift[body] * (free / np.sqrt(way[0] * way[0] + way[1] * way[1])))
    return replace(seen, drift=np.repeat(drift.astype(np.int8), bodies.count, axis=0))


def _starts(cloud: PointCloud) -> NDArray[np.intp]:
    """The row of each body's first point."""
    return np.flatnonzero(np.diff(cloud.ids >> BODY_BITS, prepend=-1))


def _distances(to: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres [N, M] between places [N, 3] and [M, 3]."""
    between = to[:, None] - of
    return np.sqrt((between * between).sum(axis=2))


def _pairs(
    new: _Bodies,
    old: _Bodies,
    part: NDArray[np.bool_],
    apart: NDArray[np.float64],
    now: int,
    policy: MotionPolicy,
) -> list[tuple[int, int]]:
    """Which new body is which old one: the nearest pairs first, each body once.

    part: bool [N, M], the new one tells no motion of the old one. apart: [N, M] metres, from where the old one is by now.
    """
    elapsed = now - old.frame
    fits = np.abs(new.colour[:, None] - old.colour).mean(axis=2) <= policy.alike
    fits &= (new.area[:, None] <= old.area * policy.larger) & (~part | (apart <= 2 * policy.least))
    fits &= (
        (_distances(new.middle, old.middle) <= policy.fastest * elapsed) & (elapsed > 0) & (elapsed <= policy.patience)
    )
    fits &= (old.count >= policy.pixels) & (new.count >= policy.pixels)[:, None]
    rows, columns = np.nonzero(fits)
    pairs: list[tuple[int, int]] = []
    for at in np.argsort(apart[rows, columns], kind="stable"):
        i, j = int(rows[at]), int(columns[at])
        if all(i != other and j != another for other, another in pairs):
            pairs.append((i, j))
    return pairs


def _drift(
    way: NDArray[np.float64], ray: NDArray[np.float64], elapsed: int, policy: MotionPolicy
) -> NDArray[np.float64]:
    """Metres a frame [2] on the ground of a body that went `way` [3] in `elapsed` frames and is seen along `ray` [3].

    Written out in single products, since a library's may round otherwise on another machine.
    """
    (x, z), (east, north) = way[_GROUND], ray[_GROUND]
    far = float(np.sqrt(east * east + north * north))
    if far <= policy.near:
        return np.zeros(2)
    east, north = east / far, north / far
    away = _believed(x * east + z * north, policy.along * far)
    aside = _believed(z * east - x * north, policy.across * far)
    if away * away + aside * aside < policy.least * policy.least:
        return np.zeros(2)
    away = max(away, (policy.near - far) * (1 - _FADING) * elapsed)
    return np.array([away * east - aside * north, away * north + aside * east]) / elapsed


def _believed(way: float, error: float) -> float:
    """How much of a measured way to believe, whose error is about `error`."""
    return way * (way * way / (way * way + error * error))


@compiled
def _moved(positions, drift, frame, now, metres):  # type: ignore[no-untyped-def]
    """See `places`; metres: float32 [LASTING + 1], of a drift of one after so many frames."""
    moved = positions.copy()
    for i in range(len(positions)):
        way = metres[min(max(now - frame[i], 0), len(metres) - 1)]
        moved[i, 0] += np.float32(drift[i, 0]) * way
        moved[i, 2] += np.float32(drift[i, 1]) * way
    return moved
