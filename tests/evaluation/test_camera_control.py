"""The estimator recovers known motion from pictures alone, and notices a camera that did not do as it was told."""

from __future__ import annotations

import numpy as np
import pytest

from teleworld.evaluation.camera_control import camera_error, camera_errors
from tests.memory.room import NANO, path, shoot

LENS = NANO.scaled(2)
POSES = ((0.0, -3.0, 5.0), (0.5, -2.4, 13.0))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([shot.picture for shot in shoot(path(*POSES, lens=LENS), LENS)])


def test_known_motion_is_recovered(pictures: np.ndarray) -> None:
    error = camera_error(pictures, path(*POSES, lens=LENS), 0, 1)
    assert error is not None
    assert error.rotation < 1.5 and error.direction < 10
    assert camera_errors(pictures, path(*POSES, lens=LENS), 1) == [error], "one after another, the same"


def test_a_camera_that_turned_too_far_is_noticed(pictures: np.ndarray) -> None:
    commanded = path(POSES[0], (0.5, -2.4, 8.0), lens=LENS)
    error = camera_error(pictures, commanded, 0, 1)
    assert error is not None and error.rotation == pytest.approx(5, abs=1.5)


def test_a_blank_picture_says_nothing(pictures: np.ndarray) -> None:
    assert camera_error(np.zeros_like(pictures), path(*POSES, lens=LENS), 0, 1) is None
