"""Which pixels become points, which points go, and that the delta tells it all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from teleworld.memory.fusion import FusionPolicy, Observation, fuse, view_cloud
from teleworld.memory.observe import depth_edges
from teleworld.memory.points import Field
from teleworld.memory.quantise import GRID_PER_METRE, RADIUS_CODES, snap_radius
from teleworld.world.errors import InvalidInput
from tests.memory.room import NANO, observe, path

START = path((0, -3, 0))


def test_the_delta_leads_from_one_field_to_the_next() -> None:
    field = Field()
    for i in range(6):
        seen = observe(path((0.2 * i, -3 + 0.5 * i, 5 * i)), frames=(10 * i,), moving=i % 2 == 1)
        delta, after = fuse(field, seen)
        assert delta.apply(field).same_as(after)
        assert (np.diff(after.static.ids) > 0).all()
        field = after
    assert field.revision == 5 and len(delta.removed)  # coming closer replaces coarse points


def test_points_lie_on_the_storage_grids_and_near_the_surface() -> None:
    seen = observe(START, frames=(0,))
    cloud = fuse(Field(), seen)[1].static
    assert np.array_equal(np.rint(cloud.positions * GRID_PER_METRE), cloud.positions * GRID_PER_METRE)
    assert np.isin(cloud.radius, RADIUS_CODES).all()
    on_wall = (np.abs(cloud.positions[:, 2] - 5.0) < 0.5) & (np.abs(cloud.positions[:, 0]) < 3)
    # depth is kept as float16, whose step at 8 m is 8 mm
    assert np.abs(cloud.positions[on_wall & (np.abs(cloud.positions[:, 1]) < 1), 2] - 5.0).max() < 0.01
    assert np.abs(snap_radius(np.array([0.05, 0.1, 1.0])) / [0.05, 0.1, 1.0] - 1).max() < 0.024


def test_the_same_view_again_adds_nothing() -> None:
    _, field = fuse(Field(), observe(START, frames=(0,)))
    delta, _ = fuse(field, observe(START, frames=(10,)))
    assert len(delta.added) < 0.01 * len(field.static) and not len(delta.removed)


def test_the_oldest_colour_wins_where_it_is_fine_enough() -> None:
    _, field = fuse(Field(), observe(START, frames=(0,)))
    repainted = observe(START, frames=(10,))
    repainted = replace(repainted, pictures=255 - repainted.pictures)
    _, after = fuse(field, repainted)
    assert (after.static.frame == 0).mean() > 0.99


def test_coming_closer_replaces_coarse_points_by_fine_ones() -> None:
    _, field = fuse(Field(), observe(START, frames=(0,)))
    closer = observe(path((0, 2, 0)), frames=(10,))
    delta, after = fuse(field, closer)
    on_wall = np.abs(after.static.positions[:, 2] - 5.0) < 0.05
    central = on_wall & (np.abs(after.static.positions[:, 0]) < 1.5) & (np.abs(after.static.positions[:, 1]) < 0.5)
    assert (after.static.frame[central] == 10).mean() > 0.95
    assert len(delta.removed) > 500


def test_a_thing_that_is_gone_is_struck_twice_and_then_removed() -> None:
    seen = observe(START, frames=(0,))
    ghost = seen.depth.copy()
    ghost[:, 60:80, 40:60] = 1.5
    _, field = fuse(Field(), replace(seen, depth=ghost))
    count = lambda fused: int((fused.static.positions[:, 2] < -1.4).sum())  # noqa: E731
    before = count(field)
    once, field = fuse(field, replace(seen, frames=(10,)))
    assert count(field) >= before and len(once.weakened) > 200
    _, field = fuse(field, replace(seen, frames=(20,)))
    inside = np.abs(field.static.positions[:, 2] + 1.5) < 0.02
    assert inside.sum() < 0.25 * 400


def test_outlines_are_not_struck_by_the_background_beside_them() -> None:
    field = Field()
    for i in range(4):
        delta, field = fuse(field, observe(path((0.05 * i, -1.0, 0.5 * i)), frames=(10 * i,)))
        assert len(delta.weakened) < 0.003 * len(field.static)


def test_moving_things_never_enter_the_static_points() -> None:
    delta, field = fuse(Field(), observe(START, frames=(0,), moving=True))
    magenta = (field.static.colours == (255, 0, 255)).all(axis=1)
    assert not magenta.any()
    assert len(field.dynamic) == 24 * 16 and [moved.frame for moved in delta.dynamic] == [0]
    _, later = fuse(field, observe(START, frames=(10,)))
    assert not len(later.dynamic)


def test_several_key_frames_in_one_task_keep_each_moment() -> None:
    camera = path((0, -3, 0), (0, -2.8, 0), (0, -2.6, 0))
    delta, field = fuse(Field(), observe(camera, frames=(4, 12, 20), moving=True))
    assert [moved.frame for moved in delta.dynamic] == [4, 12, 20]
    assert (field.dynamic.frame == 20).all() and field.revision == 0
    assert field.view is not None and field.view.frame == 20


def test_doubtful_unknown_and_edge_pixels_stay_out() -> None:
    seen = observe(START, frames=(0,))
    confidence, depth = seen.confidence.copy(), seen.depth.copy()
    confidence[:, :48] = 0.2
    depth[:, :, :40] = np.nan
    depth[:, :, 40:50] = 0
    _, field = fuse(Field(), replace(seen, confidence=confidence, depth=depth))
    assert 0 < len(field.static) < 48 * 110
    assert np.isfinite(field.static.positions).all() and (field.static.positions[:, 1] > -0.05).all()


def test_a_floor_that_runs_away_is_no_depth_edge_but_an_outline_is() -> None:
    shot = observe(START, frames=(0,)).depth[0]
    sound, _ = depth_edges(shot, FusionPolicy().edge)
    floor = sound[72:, 40:120]
    assert floor.all()
    jump = np.abs(np.diff(shot[48])) > 0.5
    assert jump.any() and not sound[48, 1:][jump].any()


def test_the_own_view_is_the_newest_key_frame() -> None:
    _, field = fuse(Field(), observe(path((0, -3, 0), (0, -2, 90)), frames=(0, 8), moving=True))
    assert field.view is not None
    cloud = view_cloud(field.view)
    assert (cloud.frame == 8).all() and len(cloud) > 0.9 * NANO.width * NANO.height


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"frames": (3, 3)}, "frames"),
        ({"frames": (-1, 3)}, "frames"),
        ({"frames": (0,)}, "frames"),
        ({"depth": np.zeros((2, 4, 4), np.float32)}, "depth"),
        ({"dynamic": np.zeros((1, 96, 160), bool)}, "dynamic"),
        ({"pictures": np.zeros((2, 96, 160, 3), np.float32)}, "pictures"),
        ({"path": path((0, 0, np.nan), (0, 0, 0))}, "path.camera_to_world[0]"),
    ],
)
def test_a_malformed_observation_is_refused_by_name(change: dict[str, object], field: str) -> None:
    seen: Observation = replace(observe(path((0, -3, 0), (0, -2, 0)), frames=(0, 8)), **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as caught:
        fuse(Field(), seen)
    assert caught.value.field == field


def test_a_delta_of_another_field_is_refused() -> None:
    seen = observe(START, frames=(0,))
    delta, field = fuse(Field(), seen)
    with pytest.raises(InvalidInput):
        delta.apply(field)
    later, _ = fuse(field, observe(path((0, 2, 0)), frames=(10,)))
    with pytest.raises(InvalidInput):
        later.apply(replace(field, static=field.static.select(slice(0, 0))))
