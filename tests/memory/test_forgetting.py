"""Over budget, the far fades to coarse and stays whole; only then is anything lost."""

from __future__ import annotations

import numpy as np
import pytest

from teleworld.memory.forgetting import forget
from teleworld.memory.fusion import FusionPolicy, fuse
from teleworld.memory.points import Field, PointCloud
from teleworld.memory.quantise import RADIUS_CODES, octaves
from teleworld.memory.splat import render
from tests.memory.room import NANO, observe, path, psnr, shoot

EYE = np.array([0.0, 0.0, -3.0])


@pytest.fixture(scope="module")
def cloud() -> PointCloud:
    return fuse(Field(), observe(path((0, -3, 0)), frames=(0,)))[1].static


def test_within_the_budget_nothing_changes(cloud: PointCloud) -> None:
    assert forget(cloud, EYE, len(cloud), len(cloud) // 2, 10**6) == (cloud, 10**6)


def test_over_budget_the_field_shrinks_to_the_target_with_new_ascending_ids(cloud: PointCloud) -> None:
    left, next_id = forget(cloud, EYE, 8000, 7000, 10**6)
    assert 4000 < len(left) <= 8000
    assert (np.diff(left.ids) > 0).all() and left.ids[-1] < next_id
    again, _ = forget(cloud, EYE, 8000, 7000, 10**6)
    assert again.same_as(left)


def test_even_points_that_cannot_merge_obey_the_budget(cloud: PointCloud) -> None:
    left, _ = forget(cloud, EYE, 50, 40, 10**6)
    assert len(left) <= 50


def test_a_forgotten_place_is_coarse_but_whole() -> None:
    camera = path((0, -3, 0))
    truth = shoot(camera)[0]
    policy = FusionPolicy(budget=9000)
    _, field = fuse(Field(), observe(camera, frames=(0,)), policy)
    assert len(field.static) <= policy.budget
    seen = render(field, camera, NANO.width, NANO.height)
    assert (seen.mask > 0).mean() > 0.95
    assert psnr(seen.rgb[0], truth.picture, seen.mask[0] > 0) > 22


def test_coming_back_refines_what_had_faded() -> None:
    camera = path((0, -3, 0))
    truth = shoot(camera)[0]
    _, field = fuse(Field(), observe(camera, frames=(0,)), FusionPolicy(budget=9000))
    faded = render(field, camera, NANO.width, NANO.height)
    delta, again = fuse(field, observe(camera, frames=(10,)))
    fresh = render(again, camera, NANO.width, NANO.height)
    assert len(delta.removed) and delta.apply(field).same_as(again)
    gain = psnr(fresh.rgb[0], truth.picture, fresh.mask[0] > 0) - psnr(faded.rgb[0], truth.picture, faded.mask[0] > 0)
    assert gain > 3


def test_the_budget_holds_over_a_walk_and_the_delta_tells_it() -> None:
    policy = FusionPolicy(budget=20_000)
    field = Field()
    for i in range(6):
        delta, after = fuse(field, observe(path((0, -3 + i, 60.0 * i)), frames=(10 * i,)), policy)
        assert len(after.static) <= policy.budget and delta.apply(field).same_as(after)
        field = after
    turn = path(*((0, 2, yaw) for yaw in range(0, 360, 60)))
    assert (render(field, turn, NANO.width, NANO.height).mask > 0).mean() > 0.85


def test_octaves_are_the_nearest_powers_of_two() -> None:
    usual = RADIUS_CODES[100:240]
    assert np.array_equal(octaves(usual), np.rint(np.log2(usual)))
