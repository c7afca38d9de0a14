"""What moves goes on moving while nobody looks, for a while, and is the same world for everybody who continues it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from teleworld.memory.clearance import free_way
from teleworld.memory.codec import decode_delta, decode_field, encode_delta, encode_field
from teleworld.memory.fusion import Observation, fuse
from teleworld.memory.memory import Memory
from teleworld.memory.motion import BODY_BITS, LASTING, places
from teleworld.memory.points import Field, PointCloud
from teleworld.memory.splat import render
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.camera import CameraPath
from tests.memory.room import NANO, observe, path

FRONT, AWAY = path((0, -3, 0)), path((0, -3, 150))
WIDE, HIGH = 0.3, 0.7  # half-width and half-height of a body, in metres
MAGENTA, GREEN = (255, 0, 255), (0, 200, 60)
Place = tuple[float, float]  # x and distance from the camera, in metres


def sight(
    camera: CameraPath,
    frame: int,
    bodies: Sequence[tuple[Place, tuple[int, int, int]]] = (),
    error: float = 1.0,
) -> Observation:
    """The room with bodies, each at (x, distance) of the camera FRONT, in their colours; their depth is off by `error`."""
    shot = observe(camera, frames=(frame,))
    pictures, depth, moving = shot.pictures.copy(), shot.depth.copy(), np.zeros_like(shot.dynamic)
    fx, fy, cx, cy = camera.intrinsics[0]
    u, v = np.arange(NANO.width) + 0.5, np.arange(NANO.height) + 0.5
    for (x, far), colour in bodies:
        wide = np.abs((u - cx) * far / fx - x) < WIDE
        high = np.abs((v - cy) * far / fy - 0.5) < HIGH
        shown = high[:, None] & wide & (depth[0] > far)
        pictures[0, shown], depth[0, shown], moving[0, shown] = colour, far * error, True
    return replace(shot, pictures=pictures, depth=depth, dynamic=moving)


def fused(*seen: Observation) -> Field:
    field = Field()
    for each in seen:
        _, field = fuse(field, each)
    return field


def shown(field: Field, frame: int, camera: CameraPath = FRONT) -> np.ndarray:
    """bool [H, W]: where something moving is rendered in a frame."""
    return render(field, camera, NANO.width, NANO.height, frames=(frame,)).dynamic[0]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def walker(*xs: float, far: float = 3.0, every: int = 8) -> list[Observation]:
    return [sight(FRONT, every * number, [((x, far), MAGENTA)]) for number, x in enumerate(xs)]


def test_who_walked_out_of_sight_comes_back_into_view_further_on() -> None:
    field = fused(*walker(-1.2, -0.4), *(sight(AWAY, frame) for frame in (16, 24, 32)))
    assert not shown(field, 36, AWAY).any()
    back = shown(field, 36)
    for x, least, most in ((-0.4, 0.0, 0.1), (0.24, 0.7, 1.0)):
        assert least <= overlap(back, sight(FRONT, 36, [((x, 3.0), MAGENTA)]).dynamic[0]) <= most
    assert (field.dynamic.frame == 8).all(), "what is stored is the place where it was seen"


def test_who_stands_stays() -> None:
    field = fused(*walker(-0.4, -0.4), sight(AWAY, 16))
    assert not field.dynamic.drift.any()
    assert np.array_equal(shown(field, 24), shown(field, 2000))


@pytest.mark.parametrize("errors", [(0.95, 1.07), (1.07, 0.94), (1.0, 1.1), (1.1, 1.0)])
def test_a_wrong_depth_is_no_motion(errors: tuple[float, float]) -> None:
    body = ((0.8, 3.5), MAGENTA)
    field = fused(*(sight(FRONT, 8 * number, [body], error) for number, error in enumerate(errors)))
    assert not field.dynamic.drift.any()


def test_motion_fades_and_has_an_end() -> None:
    dynamic = fused(*walker(-1.2, -0.4)).dynamic
    way = np.array([np.abs(places(dynamic, 8 + after) - dynamic.positions).max() for after in range(LASTING + 10)])
    step = np.diff(way)
    assert way[0] == 0 and way[1] == pytest.approx(0.1, abs=0.006)
    assert (step[:40] > 0).all() and (np.diff(step[:40]) < 0).all() and way[-1] == way[-5]
    assert way.max() < 7 * way[1]
    for late in (10**9, 2**63, 2**64 - 1):
        assert np.array_equal(places(dynamic, late), places(dynamic, 8 + LASTING))
    assert np.array_equal(places(dynamic, 0), dynamic.positions), "the past is not known better than it was seen"


def test_guidance_behind_the_newest_key_frame_shows_where_things_will_be() -> None:
    field = fused(*walker(-1.2, -0.4))
    cameras = path(*[(0, -3, 0)] * 8)
    following = render(field, cameras, NANO.width, NANO.height).dynamic
    assert np.array_equal(following[7], shown(field, 16)) and not np.array_equal(following[7], following[0])
    truth = sight(FRONT, 12, [((0.0, 3.0), MAGENTA)]).dynamic[0]
    assert overlap(following[3], truth) > overlap(shown(field, 8), truth) + 0.3


def test_nothing_walks_through_a_wall() -> None:
    field = fused(*walker(2.2, 3.3, far=5.0))
    drift = field.dynamic.drift
    middle = places(field.dynamic, 2000).mean(axis=0)
    assert (drift[:, 0] > 0).all() and 3.35 < middle[0] < 3.75, "the wall is at 4 m"
    static, start = field.static, np.array([0.0, 0.2, 0.0])
    assert free_way(static, start, np.array([1.5, 0.0])) == 1.5
    assert 3.2 <= free_way(static, np.array([0.0, 0.2, 2.0]), np.array([9.0, 0.0])) <= 3.8


def test_nobody_walks_into_the_eye() -> None:
    near = fused(*(sight(FRONT, 8 * n, [((0.0, far), MAGENTA)]) for n, far in enumerate((5.0, 2.8))))
    end = places(near.dynamic, 2000)[:, 2].mean() + 3
    assert 2.0 - 0.06 <= end < 2.3
    nearer = fused(*(sight(FRONT, 8 * n, [((0.0, far), MAGENTA)]) for n, far in enumerate((2.6, 1.8))))
    assert not nearer.dynamic.drift.any()


def test_who_is_cut_off_by_the_side_of_the_picture_walks_on_in_one_piece() -> None:
    seen_at = [(1.95, 3.0), (2.4, 2.55), (2.71, 2.24)]
    field = fused(*(sight(FRONT, 8 * number, [(place, MAGENTA)]) for number, place in enumerate(seen_at)))
    drift, frame = field.dynamic.drift, field.dynamic.frame
    assert set(frame.tolist()) == {8, 16}, "the part beyond the side was seen in the frame before"
    assert (drift[:, 0] > 0).all()
    for later in (16, 24, 60):
        x = places(field.dynamic, later)[:, 0]
        assert 1.3 * WIDE < np.ptp(x) < 2.5 * WIDE, "more than the part in view, and of one body"


def test_a_second_glance_at_once_tells_no_motion_but_keeps_it() -> None:
    before = fused(*walker(-1.2, -0.4))
    _, after = fuse(before, sight(FRONT, 12, [((0.0, 3.0), MAGENTA)]))
    assert (after.dynamic.frame == 12).all() and (
        after.dynamic.drift[:, 0] == round(before.dynamic.drift[0, 0] * 0.85**4)
    ).all()
    assert not fused(*walker(-0.8, -0.4, every=4)).dynamic.drift.any()


def test_a_place_where_it_should_be_by_now_and_is_not_is_believed() -> None:
    walking = walker(-1.2, -0.4)
    assert not len(fused(*walking, sight(FRONT, 16)).dynamic), "seen through where it should be"
    stopped = fused(*walking, sight(FRONT, 16, [((-0.4, 3.0), MAGENTA)])).dynamic
    assert (stopped.frame == 16).all() and not stopped.drift.any(), "seen where it stood: no second one walks on"


def test_bodies_are_told_apart() -> None:
    pair = [((-0.9, 4.0), MAGENTA), ((0.0, 4.0), MAGENTA)]
    field = fused(sight(FRONT, 0, pair), sight(FRONT, 8, pair))
    assert not field.dynamic.drift.any() and set((field.dynamic.ids >> BODY_BITS).tolist()) == {0, 1}
    swapped = [[((-0.6, 4.0), MAGENTA), ((0.2, 4.0), GREEN)], [((-0.6, 4.0), GREEN), ((0.2, 4.0), MAGENTA)]]
    dynamic = fused(sight(FRONT, 0, swapped[0]), sight(FRONT, 8, swapped[1])).dynamic
    magenta = dynamic.colours[:, 0] == 255
    assert (dynamic.drift[magenta, 0] > 0).all() and (dynamic.drift[~magenta, 0] < 0).all()


def test_a_restart_and_a_fork_go_on_with_the_same_bits() -> None:
    first, second = walker(-1.2, -0.4)
    rest = [sight(AWAY, 16), sight(path((0, -3, 40)), 24), sight(FRONT, 32, [((0.4, 3.0), MAGENTA)])]
    store = LocalMemoryStore()
    for revision, seen in enumerate((first, second)):
        Memory(store).fuse_and_append("world", 1, revision - 1, seen)
    store.fork("world", 1, "fork")
    expected, worlds = fused(first, second), {name: Memory(store) for name in ("world", "fork")}
    assert expected.dynamic.drift.any()
    for revision, seen in enumerate(rest, start=1):
        delta, after = fuse(expected, seen)
        assert decode_delta(encode_delta(delta)).apply(expected).same_as(after)
        assert decode_field(encode_field(after)).same_as(after)
        for name, memory in worlds.items():
            memory.fuse_and_append(name, 1, revision, seen)
            assert store.load(name, revision + 1).same_as(after)
        expected = after
    views = [m.guidance_frames(name, 1, 2, FRONT, NANO.width, NANO.height) for name, m in worlds.items()]
    assert np.array_equal(views[0].pixels, views[1].pixels) and views[0].dynamic.any(), (
        "time travel to an older revision"
    )


def test_a_world_stored_before_bodies_had_numbers_goes_on() -> None:
    known = fused(*walker(-1.2, -0.4))
    count = len(known.dynamic)
    old = replace(known.dynamic, ids=np.arange(count), drift=np.zeros((count, 2), np.int8))
    _, field = fuse(replace(known, dynamic=old), sight(FRONT, 16, [((0.4, 3.0), MAGENTA)]))
    assert (field.dynamic.frame == 16).all() and (field.dynamic.drift[:, 0] > 0).all()


def test_the_place_in_a_ply_is_that_of_its_frame() -> None:
    store = LocalMemoryStore()
    memory = Memory(store)
    for revision, seen in enumerate([*walker(-1.2, -0.4), sight(AWAY, 16)]):
        memory.fuse_and_append("world", 1, revision - 1, seen)
    kept = store.dynamic("world", 16).points
    assert isinstance(kept, PointCloud) and not np.array_equal(places(kept, 16), kept.positions)
    assert places(kept, 16).astype("<f4")[-1].tobytes() in b"".join(memory.export("world", 2, 16))
