"""The digest of a latent, by which chunks and states are named."""

from __future__ import annotations

import hashlib

import numpy as np

from teleworld.world.latents import LastDigest, latent_digest
from teleworld.world.work import Guidance

LATENTS = np.random.default_rng(3).standard_normal((5, 2, 3, 4), dtype=np.float32)


def test_a_digest_is_of_the_bytes_in_c_order_however_they_lie() -> None:
    wanted = hashlib.sha256(LATENTS[0].tobytes()).hexdigest()
    assert latent_digest(LATENTS[0]) == wanted
    assert latent_digest(np.asfortranarray(LATENTS[0])) == wanted
    assert latent_digest(LATENTS[0].astype(">f4")) == wanted


def test_the_last_digest_is_never_that_of_another_latent() -> None:
    last = LastDigest()
    for latent in (LATENTS[0], LATENTS[0], LATENTS[1], LATENTS[0], LATENTS[0].copy() + 1):
        assert last.of(latent) == latent_digest(latent)


def test_a_part_of_guidance_is_the_same_whether_its_latents_are_neighbours_or_not() -> None:
    frames = np.arange(20 * 6, dtype=np.uint8).reshape(20, 2, 3)
    whole = Guidance((2, 3, 4, 6, 7), np.repeat(frames[..., None], 3, -1), frames, LATENTS, LATENTS[:, 0])
    for indices in ((3,), (3, 4), (2, 4, 7), (2, 3, 4, 6, 7)):
        rows = [whole.indices.index(index) for index in indices]
        shown = [4 * row + frame for row in rows for frame in range(4)]
        part, blind = whole.of(indices), whole.of(indices, pictures=False)
        assert part.indices == blind.indices == indices
        assert np.array_equal(part.pixels, whole.pixels[shown]) and np.array_equal(part.mask, frames[shown])
        assert np.array_equal(part.latents, LATENTS[rows]) and np.array_equal(blind.latents, LATENTS[rows])
        assert np.array_equal(part.coverage, LATENTS[rows, 0]) and np.array_equal(blind.coverage, LATENTS[rows, 0])
        assert len(blind.pixels) == len(blind.mask) == 0
