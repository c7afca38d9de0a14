"""Moving things go on existing while nobody looks, and are believed to have moved once somebody does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from teleworld.memory.codec import decode_delta, encode_delta
from teleworld.memory.fusion import FusionPolicy, Observation, fuse
from teleworld.memory.movers import MoverPolicy, body_depth
from teleworld.memory.points import Field
from teleworld.memory.splat import Rendering, render
from teleworld.training.recording.engine import DoomEngine, wad_path
from teleworld.training.recording.episode import SceneFrame, draw_place, resolve
from teleworld.training.recording.wad import read_map
from teleworld.world.camera import CameraPath
from tests.memory.room import NANO, observe, path

START, AWAY = path((0, -3, 0)), path((0, -3, 150))
BLOCK = np.zeros((96, 160), bool)
BLOCK[40:70, 70:100] = True
STEPS = 24


def with_block(camera: CameraPath, frame: int, distance: float = 2.0, seen: bool = True) -> Observation:
    """The room with a magenta block in the middle of the view, which the detector sees or misses."""
    shot = observe(camera, frames=(frame,))
    pictures, depth = shot.pictures.copy(), shot.depth.copy()
    pictures[0, BLOCK], depth[0, BLOCK] = (255, 0, 255), distance
    return replace(shot, pictures=pictures, depth=depth, dynamic=(BLOCK & seen)[None])


def look(field: Field, camera: CameraPath) -> Rendering:
    return render(field, camera, NANO.width, NANO.height)


def test_a_thing_out_of_view_goes_on_existing() -> None:
    _, first = fuse(Field(), with_block(START, 0))
    before = look(first, START)
    delta, field = fuse(first, observe(path((0, -3, 100), (0, -3, 150)), frames=(8, 16)))
    after = look(field, START)
    assert np.array_equal(after.dynamic, before.dynamic) and after.dynamic[0][BLOCK].mean() > 0.98
    assert np.array_equal(after.rgb[0][BLOCK], before.rgb[0][BLOCK])
    assert (delta.dynamic[-1].points.frame == 0).all() and delta.dynamic[-1].frame == 16
    assert not look(field, AWAY).dynamic.any()
    assert decode_delta(encode_delta(delta)).apply(first).same_as(field), "the store brings them back, bit for bit"


def test_a_thing_behind_a_wall_goes_on_existing() -> None:
    _, field = fuse(Field(), with_block(START, 0))
    nearer = observe(START, frames=(8,))
    _, field = fuse(field, replace(nearer, depth=np.full_like(nearer.depth, 1.0)))
    assert len(field.dynamic) == BLOCK.sum()


def test_a_thing_that_left_is_no_ghost() -> None:
    _, field = fuse(Field(), with_block(START, 0))
    _, field = fuse(field, observe(START, frames=(8,)))
    assert not len(field.dynamic)
    _, field = fuse(Field(), with_block(START, 0))
    _, field = fuse(field, with_block(START, 8, distance=1.6))
    assert (field.dynamic.frame == 8).all(), "a newer sight of it replaces the older one"


def test_what_a_mask_misses_is_kept_for_a_while_and_never_becomes_wall_at_once() -> None:
    _, field = fuse(Field(), with_block(START, 0))
    kept = []
    for number in range(1, 6):
        _, field = fuse(field, with_block(START, 8 * number, seen=False))
        magenta = (field.static.colours == (255, 0, 255)).all(axis=1).any()
        kept.append((len(field.dynamic) > 0, bool(magenta)))
    assert kept[:3] == [(True, False)] * 3, "missed three times, it still counts as moving"
    assert kept[-1] == (False, True), "what never moves again becomes part of the world"


def test_the_longest_unseen_go_first() -> None:
    policy = FusionPolicy(movers=MoverPolicy(budget=1000))
    _, field = fuse(Field(), with_block(START, 0), policy)
    _, field = fuse(field, with_block(AWAY, 8), policy)
    _, field = fuse(field, observe(path((0, -3, 70)), frames=(16,)), policy)
    counts = {frame: int((field.dynamic.frame == frame).sum()) for frame in (0, 8)}
    assert counts == {0: 100, 8: 900}


def test_a_body_is_about_as_far_in_all_its_parts() -> None:
    depth = np.full((12, 16), 9.0, np.float32)
    moving = np.zeros((12, 16), bool)
    moving[2:8, 2:6] = moving[3:6, 10:14] = True
    depth[2:8, 2:6], depth[3:6, 10:14] = 4.0, 50.0
    depth[2, 2:6] = 9.0  # an outline, mixed with the background
    depth[7, 3] = np.nan
    sound = np.ones_like(moving)
    sound[2, 3], sound[3:6, 10:14] = False, False
    flat, body = body_depth(depth, sound, moving, 0.2, 100.0, MoverPolicy(relief=0.1))
    assert not flat[~moving].any() and flat[2, 3] == flat[7, 3] == 4.0
    assert flat[2, 4] == pytest.approx(4.4)
    assert (flat[3:6, 10:14] == 50.0).all(), "a body without a sound pixel keeps what was measured"
    assert (body[2:8, 2:6] == 1).all() and (body[3:6, 10:14] == 2).all() and not body[~moving].any()


def observation(scene: SceneFrame, frame: int, *, seen: bool = True) -> Observation:
    """What a perfect reconstructor measures of an engine frame."""
    wide = scene.rgb192.reshape(96, 2, 160, 2, 3).mean(axis=(1, 3)).astype(np.uint8)
    camera = CameraPath(scene.camera_to_world[None], scene.intrinsics[None].astype(np.float64))
    depth = scene.depth[None].astype(np.float32)
    return Observation(
        wide[None], depth, (depth > 0).astype(np.float32), (scene.dynamic & seen)[None], camera, (frame,)
    )


@pytest.fixture(scope="module")
def turn() -> list[SceneFrame]:
    """The engine's own frames of a full turn in place; monsters stand before the first one."""
    geometry = read_map(wad_path("MAP01"), "MAP01")
    random = np.random.default_rng(5)
    with DoomEngine("MAP01") as engine:
        engine.restart(5, draw_place(geometry, random), float(random.uniform(0, 2 * np.pi)), peaceful=True)
        scenes = []
        for _ in range(STEPS + 1):
            scenes.append(resolve(engine.frame(), geometry, None))
            engine.press(0.0, 0.0, 2 * np.pi / STEPS, 0.0, False)
    return scenes


def test_a_monster_is_still_there_after_the_camera_turned_away_and_back(turn: list[SceneFrame]) -> None:
    first = observation(turn[0], 0)
    there = first.dynamic & (first.depth > 0)
    assert there.sum() > 400
    _, field = fuse(Field(), first)
    # From here on the sight is checked until the first place comes into view again.
    for number in range(6, STEPS - 5):
        _, field = fuse(field, observation(turn[number], 8 * number))
    back = look(field, first.path)
    common = (back.dynamic & there).sum() / (back.dynamic | there).sum()
    assert common > 0.8, "the monsters of the first frame stand where they were"
    error = np.abs(back.rgb.astype(float) - first.pictures)[there].mean()
    assert error < 12, "and look as they did"


def test_the_sight_of_the_place_itself_outweighs_the_memory_of_its_monsters(turn: list[SceneFrame]) -> None:
    first, last = observation(turn[0], 0), observation(turn[-1], 8 * STEPS)
    _, field = fuse(Field(), first)
    _, field = fuse(field, last)
    shown = look(field, last.path).dynamic
    now = last.dynamic & (last.depth > 0)
    assert (shown & now).sum() / max((shown | now).sum(), 1) > 0.8
