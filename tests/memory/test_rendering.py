"""What is fused from some poses looks right from others."""

from __future__ import annotations

import time

import numpy as np
import pytest

from teleworld.memory.fill import fill
from teleworld.memory.fusion import fuse
from teleworld.memory.points import Field
from teleworld.memory.splat import render
from teleworld.world.camera import CameraPath
from tests.memory.room import NANO, observe, path, psnr, sharpness, shoot


def fused(camera: CameraPath) -> Field:
    """The field after fusing each camera of a path on its own."""
    field = Field()
    for i in range(len(camera)):
        field = fuse(field, observe(camera[[i]], frames=(10 * i,)))[1]
    return field


@pytest.fixture(scope="module")
def two_views() -> Field:
    return fused(path((0, -3, 0), (0.4, -2.2, 8)))


def test_the_fused_view_comes_back_as_it_was(two_views: Field) -> None:
    camera = path((0, -3, 0))
    truth = shoot(camera)[0]
    seen = render(two_views, camera, NANO.width, NANO.height)
    covered = seen.mask[0] > 0
    assert covered.mean() > 0.95
    assert psnr(seen.rgb[0], truth.picture, covered) > 33
    assert np.median(np.abs(seen.depth[0] - truth.depth)[covered] / truth.depth[covered]) < 0.002


@pytest.mark.parametrize(("pose", "bound"), [((0.2, -2.6, 4), 27), ((0.3, -1.5, 6), 26), ((0.5, -3.0, -10), 27)])
def test_a_third_view_is_close_to_the_truth_and_sharp(
    two_views: Field, pose: tuple[float, float, float], bound: float
) -> None:
    camera = path(pose)
    truth = shoot(camera)[0]
    seen = render(two_views, camera, NANO.width, NANO.height)
    covered = seen.mask[0] > 0
    assert covered.mean() > 0.8
    assert psnr(seen.rgb[0], truth.picture, covered) > bound
    assert sharpness(seen.rgb[0], truth.picture, covered) > 0.75


def test_moving_closer_leaves_no_pinholes() -> None:
    field = fused(path((0, -3, 0)))
    seen = render(field, path((0, -1.5, 0)), NANO.width, NANO.height)
    floor = seen.mask[0, 60:, 20:90]  # in full sight of the first camera, at about half the distance
    assert (floor > 0).all()


def test_a_full_turn_brings_the_start_view_back() -> None:
    turn = path(*((0.0, -0.5, yaw) for yaw in range(0, 360, 20)))
    truth = shoot(turn[[0]])[0]
    field = fused(turn)
    seen = render(field, turn[[0]], NANO.width, NANO.height)
    assert (seen.mask[0] > 0).mean() > 0.97
    assert psnr(seen.rgb[0], truth.picture, seen.mask[0] > 0) > 34
    everywhere = render(field, turn, NANO.width, NANO.height)
    assert (everywhere.mask > 0).mean() > 0.97


def test_a_surface_is_not_seen_from_behind() -> None:
    field = fused(path((0, -3, 0)))
    behind = render(field, path((0, 7.0, 180)), NANO.width, NANO.height)  # beyond the far wall, looking back
    assert (behind.mask[0, NANO.height // 2 - 4 : NANO.height // 2 + 4, 40:120] == 0).all()


def test_near_surfaces_hide_far_ones(two_views: Field) -> None:
    camera = path((0.6, -1.0, 10))
    truth = shoot(camera)[0]
    seen = render(two_views, camera, NANO.width, NANO.height)
    covered = seen.mask[0] > 0
    wrong = np.abs(seen.depth[0] - truth.depth) > 0.1 * truth.depth
    assert (wrong & covered).mean() < 0.02


def test_the_same_input_gives_the_same_bits(two_views: Field) -> None:
    camera = path((0.2, -2.6, 4), (0.3, -2.5, 9))
    one, two = (render(two_views, camera, NANO.width, NANO.height) for _ in range(2))
    for name in ("rgb", "depth", "mask", "index", "seen", "dynamic"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    again = fused(path((0, -3, 0), (0.4, -2.2, 8)))
    assert again.same_as(two_views)


def test_index_and_age_name_the_point_that_is_seen() -> None:
    camera = path((0, -3, 0))
    _, field = fuse(Field(), observe(camera, frames=(7,), moving=True))
    seen = render(field, camera, NANO.width, NANO.height)
    assert (seen.seen[seen.mask > 0] == 7).all() and (seen.seen[seen.mask == 0] == -1).all()
    assert np.array_equal(seen.dynamic, seen.index >= len(field.static))
    block = seen.dynamic[0, 60:68, 84:92]
    assert block.all() and (seen.rgb[0, 60:68, 84:92] == (255, 0, 255)).all()


def test_an_empty_field_is_all_hole() -> None:
    seen = render(Field(), path((0, 0, 0)), NANO.width, NANO.height)
    assert not seen.mask.any() and (seen.index == -1).all()
    assert (fill(seen.rgb, seen.mask) == 128).all()


def test_what_is_unknown_is_the_reflection_of_what_is_known() -> None:
    """A texture known up to column 100 goes on behind it as in a mirror, whatever stray points are known beyond."""
    texture = np.random.default_rng(0).integers(0, 255, (2, 96, 160, 3)).astype(np.uint8)
    mask = np.full((2, 96, 160), 255, np.uint8)
    mask[0, :, 100:] = 0
    mask[0, 40, 150] = 255
    mask[1] = 0
    filled = fill(np.where(mask[..., None] > 0, texture, 0).astype(np.uint8), mask)
    assert (filled[mask > 0] == texture[mask > 0]).all()
    mirrored = texture[0, :, 98 - np.arange(60)]
    wrong = (filled[0, :, 100:] != mirrored.transpose(1, 0, 2)).any(axis=-1)
    assert wrong.sum() == 1 and wrong[40, 50]
    assert (filled[1] == filled[0, :, ::-1]).all()


def test_what_lies_behind_a_hole_is_taken_from_nearer_its_edge_where_the_reflection_is_unknown() -> None:
    mask = np.zeros((1, 96, 160), np.uint8)
    mask[:, 30:60, 70:100] = 255
    seen = np.where(mask[..., None] > 0, np.arange(160)[:, None] * np.ones(3), 0).astype(np.uint8)
    filled = fill(seen, mask)[0, 45, :, 0]
    assert filled.min() == 70 and filled.max() == 99
    assert (filled[100:129] == 198 - np.arange(100, 129)).all() and (filled[130:] < 99).all()


def test_upwards_and_downwards_the_reflection_stays_near_the_edge() -> None:
    rows = np.broadcast_to(np.arange(96, dtype=np.uint8)[None, :, None, None], (1, 96, 160, 3))
    mask = np.zeros((1, 96, 160), np.uint8)
    mask[:, 20:60] = 255
    filled = fill(np.where(mask[..., None] > 0, rows, 0).astype(np.uint8), mask)[0, :, 80, 0]
    assert filled[:20].min() >= 20 and filled[:20].max() <= 30
    assert filled[60:].min() >= 49 and filled[60:].max() <= 59
    assert abs(np.diff(filled.astype(int))).max() <= 1


def test_speed_is_reported(two_views: Field, capsys: pytest.CaptureFixture[str]) -> None:
    camera = path(*((0.1, -3 + 0.1 * i, 2 * i) for i in range(20)))
    render(two_views, camera, NANO.width, NANO.height)
    start = time.thread_time()
    render(two_views, camera, NANO.width, NANO.height)
    each = (time.thread_time() - start) / len(camera)
    with capsys.disabled():
        print(f"\n{len(two_views.static)} points: {each * 1e3:.2f} ms of processor time a frame of 96x160")
    assert each < 0.2
