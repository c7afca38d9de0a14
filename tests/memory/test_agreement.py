"""Measured depth gives way to the memory's where a picture shows what the memory shows, and follows its scale elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from teleworld.memory.agreement import settled
from teleworld.memory.fusion import Observation, fuse
from teleworld.memory.points import Field
from teleworld.memory.splat import Rendering, render
from tests.memory.room import SMALL, observe, path

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (1, 24, 40, 3), dtype=np.uint8)
DEPTH = RANDOM.uniform(2, 4, (1, 24, 40)).astype(np.float32)
KNOWN = np.arange(40) < 25


def settle(measured: np.ndarray, picture: np.ndarray, depth: np.ndarray, rgb: np.ndarray, moves=False) -> np.ndarray:
    """`settled` of one frame."""
    dynamic = np.broadcast_to(moves, measured.shape)
    camera = path((0, 0, 0))
    seen = Observation(picture, measured, np.ones_like(measured), np.zeros_like(dynamic), camera, (0,))
    nothing = np.zeros(measured.shape, np.int32)
    shown = Rendering(rgb, depth, (255 * (depth > 0)).astype(np.uint8), nothing, nothing, dynamic)
    out = settled(seen, shown).depth
    other = settled(replace(seen, dynamic=dynamic), replace(shown, dynamic=np.zeros_like(dynamic))).depth
    np.testing.assert_array_equal(out, other, "what moves may be known to move by either")
    return out


def test_what_is_shown_again_keeps_its_depth_and_what_is_new_gets_its_scale():
    shown = np.where(KNOWN[:, None], PICTURE, 0)
    out = settle(1.2 * DEPTH, PICTURE, np.where(KNOWN, DEPTH, 0), shown)
    assert np.array_equal(out[..., KNOWN], DEPTH[..., KNOWN])
    np.testing.assert_allclose(out[..., ~KNOWN], DEPTH[..., ~KNOWN], rtol=1e-5)


def test_where_the_picture_shows_something_else_it_is_measured():
    other = np.where((np.arange(40) > 10)[:, None], PICTURE, 255 - PICTURE // 2)
    wide = np.full((1, 24, 40), 3.0, np.float32)
    out = settle(2 * wide, other, wide, PICTURE)
    assert np.array_equal(out[..., 14:], wide[..., 14:]), "three pixels around a change are the change's"
    nearer = np.where(np.arange(40) > 10, wide, 1.5).astype(np.float32)
    assert (settle(nearer, other, wide, PICTURE)[..., :7] == 1.5).all()


def test_a_measurement_is_taken_as_it_is_where_nothing_compares():
    unknown = np.zeros_like(DEPTH)
    assert np.array_equal(settle(DEPTH, PICTURE, unknown, np.zeros_like(PICTURE)), DEPTH)


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf])
def test_what_was_not_measured_stays_unknown_but_for_what_the_memory_knows(hole: float):
    measured = DEPTH.copy()
    measured[:, 5:9] = hole
    out = settle(measured, PICTURE, np.where(KNOWN, DEPTH, 0), np.where(KNOWN[:, None], PICTURE, 0))
    assert np.array_equal(out[..., KNOWN], DEPTH[..., KNOWN])
    np.testing.assert_array_equal(out[:, 5:9, ~KNOWN], np.float32(hole))
    np.testing.assert_allclose(out[:, 12:, ~KNOWN], DEPTH[:, 12:, ~KNOWN], rtol=1e-5)


def test_a_scale_out_of_all_reason_is_not_believed():
    out = settle(10 * DEPTH, PICTURE, np.where(KNOWN, DEPTH, 0), np.where(KNOWN[:, None], PICTURE, 0))
    np.testing.assert_allclose(out[..., ~KNOWN], 5 * DEPTH[..., ~KNOWN], rtol=1e-5)


def test_what_moves_is_measured():
    moves = np.arange(40) < 8
    out = settle(1.2 * DEPTH, PICTURE, DEPTH, PICTURE, moves)
    assert np.array_equal(out[..., ~moves], DEPTH[..., ~moves])
    measured = settle(2 * np.where(moves, 3, DEPTH).astype(np.float32), PICTURE, DEPTH, PICTURE, moves)[..., moves]
    np.testing.assert_allclose(measured, 3, rtol=1e-5)


def test_walls_stand_still_however_often_they_are_measured_badly():
    _, field = fuse(Field(), observe(path((0, -2, 0), lens=SMALL), frames=(0,), lens=SMALL))
    wild = first = field
    for number in range(1, 7):
        seen = observe(path((0, -2 + 0.1 * number, 0), lens=SMALL), frames=(number,), lens=SMALL)
        wrong = replace(seen, depth=seen.depth * np.float32(1.15 if number % 2 else 0.85))
        shown = render(field, seen.path, SMALL.width, SMALL.height)
        _, field = fuse(field, settled(wrong, shown))
        _, wild = fuse(wild, wrong)
    back = path((0, -2, 0), lens=SMALL)
    before, after, without = (render(one, back, SMALL.width, SMALL.height).depth for one in (first, field, wild))
    both = (before > 0) & (after > 0) & (without > 0)
    error = lambda depth: np.median(np.abs(depth[both] / before[both] - 1))  # noqa: E731
    assert error(after) < 0.01 < 0.05 < error(without)
