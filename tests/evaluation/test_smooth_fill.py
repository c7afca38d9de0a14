"""The yardstick keeps what is known and is smooth elsewhere."""

from __future__ import annotations

import numpy as np

from teleworld.evaluation.smooth_fill import smoothly_filled


def test_a_hole_in_a_ramp_goes_on_about_as_the_ramp() -> None:
    ramp = np.broadcast_to(np.arange(0, 160, dtype=np.uint8)[None, None, :, None], (2, 96, 160, 3)).copy()
    known = np.ones((2, 96, 160), bool)
    known[0, 30:60, 60:100] = False
    known[1] = False
    filled = smoothly_filled(np.where(known[..., None], ramp, 0).astype(np.uint8), known)
    assert (filled[known] == ramp[known]).all()
    assert np.abs(filled[0].astype(int) - ramp[0]).max() < 25
    assert np.abs(np.diff(filled[0].astype(int), axis=1)).max() <= 12
    assert (filled[1] == 128).all(), "mid-grey where nothing is known"
