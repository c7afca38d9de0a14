"""Each figure against a value worked out by hand, or a property that it must have."""

from __future__ import annotations

import numpy as np
import pytest

from teleworld.evaluation.metrics import (
    Figure,
    depth_error,
    drift,
    frechet,
    neighbour_correlation,
    overlap,
    psnr,
    seam_ratio,
    sharpness,
)

RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def test_psnr_of_a_known_error_and_of_chosen_pixels() -> None:
    truth = np.full((1, 8, 8, 3), 100, np.uint8)
    shown = truth.copy()
    shown[:, :4] += 10
    where = np.zeros((1, 8, 8), bool)
    where[:, :4] = True
    assert psnr(shown, truth, where) == pytest.approx(20 * np.log10(25.5))
    assert psnr(shown, truth) == pytest.approx(20 * np.log10(25.5) + 10 * np.log10(2))
    assert np.isnan(psnr(shown, truth, np.zeros_like(where)))


def test_sharpness_halves_with_contrast() -> None:
    truth = noise(2, 16, 16, 3)
    assert sharpness(truth, truth) == 1
    assert sharpness(truth // 2, truth) == pytest.approx(0.5, abs=0.01)


def test_depth_errors_ignore_the_unknown() -> None:
    truth = np.array([[2.0, 4.0, 0.0, 5.0]])
    assert depth_error(truth * 1.1, truth) == (pytest.approx(0.1), pytest.approx(0.1))
    assert depth_error(np.array([[2.0, 2.0, 9.0, 0.0]]), truth)[0] == pytest.approx(0.25)


def test_a_jump_at_the_boundary_shows_in_the_seam() -> None:
    frames = np.tile(np.arange(10, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 3))
    assert seam_ratio(frames, [5]) == pytest.approx(1)
    frames[5:] += 3
    assert seam_ratio(frames, [5]) == pytest.approx(4)


def test_drift_is_the_relative_slope_per_minute() -> None:
    base = noise(1, 12, 12, 3) // 2
    frames = np.concatenate([np.clip(base * (1 + 0.5 * k / 119), 0, 255) for k in range(120)]).astype(np.uint8)
    slopes = drift(frames, fps=2.0)
    # From 1 to 1.5 in a minute, over a mean of 1.25.
    assert all(slope == pytest.approx(0.4, abs=0.02) for slope in slopes.values())
    assert all(abs(slope) < 1e-6 for slope in drift(np.repeat(base, 20, axis=0), 2.0).values())


def test_neighbour_correlation_tells_noise_from_surfaces() -> None:
    independent = RANDOM.standard_normal((3, 4, 24, 24))
    smooth = independent.repeat(4, axis=-1).repeat(4, axis=-2)
    assert abs(neighbour_correlation(independent)) < 0.05
    assert neighbour_correlation(smooth) > 0.6
    tokens = independent.repeat(2, axis=-1).repeat(2, axis=-2)
    assert neighbour_correlation(tokens) > 0.4, "cells of one token agree"
    assert abs(neighbour_correlation(tokens, token=2)) < 0.05, "tokens do not"


def test_frechet_distance_of_shifted_gaussians() -> None:
    rows = RANDOM.standard_normal((4000, 5))
    assert frechet(rows, rows) == pytest.approx(0, abs=1e-6)
    assert frechet(rows, rows + 2) == pytest.approx(20, rel=1e-6)
    assert frechet(rows, 3 * rows) > frechet(rows, 2 * rows) > 1


def test_overlap_counts_pixels() -> None:
    assert overlap(np.array([True, True, False]), np.array([False, True, True])) == (1, 3)


def test_a_figure_leaves_out_what_is_unknown() -> None:
    figure = Figure.of([1.0, 3.0, float("nan")])
    assert (figure.mean, figure.count) == (2.0, 2)
    assert figure.interval == pytest.approx(1.96)
    assert Figure.of([]).count == 0


def test_a_resampled_mean_has_the_interval_of_a_mean() -> None:
    samples = RANDOM.standard_normal(60)
    plain, drawn = Figure.of(samples.tolist()), Figure.resampled(lambda rows: float(samples[rows].mean()), 60, 2000)
    assert drawn.mean == pytest.approx(plain.mean) and drawn.interval == pytest.approx(plain.interval, rel=0.1)
    assert Figure.resampled(lambda rows: 0.0, 0).count == 0 and np.isnan(Figure.resampled(lambda rows: 1.0, 1).interval)
