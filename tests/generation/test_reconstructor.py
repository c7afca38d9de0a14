"""Key frames measured beside a memory: generated ones owe it their depth, recorded ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from teleworld.generation.model import load_model
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.splat import render
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.errors import InvalidInput
from tests.memory.room import NANO, observe, path
from tests.tiny_model import write_tiny_model

AHEAD, NEARER = path((0, -2, 0)), path((0, -1.5, 0))


@pytest.fixture(scope="module")
def reconstructor(tmp_path_factory: pytest.TempPathFactory) -> Reconstructor:
    """One whose network has learnt nothing, beside a memory of a room as it is."""
    model = load_model("nano", write_tiny_model(tmp_path_factory.mktemp("models")))
    memory = Memory(LocalMemoryStore())
    memory.fuse_and_append("w", 1, -1, observe(AHEAD, frames=(0,)))
    return Reconstructor(model, memory)


def test_a_generated_picture_of_what_is_known_keeps_its_depth(reconstructor: Reconstructor) -> None:
    field = reconstructor.memory.field_at("w", 1, 0)
    shown = render(field, NEARER, NANO.width, NANO.height, frames=(4,))
    seen = reconstructor.measure(field, observe(NEARER, frames=(4,)).pictures, NEARER, (4,))
    recorded = reconstructor.measure_recorded(field, seen.pictures, NEARER, (4,))
    known = (shown.depth > 0) & ~seen.dynamic
    same = seen.depth == shown.depth
    assert same[known].mean() > 0.8 and not np.isclose(recorded.depth, shown.depth, rtol=1e-3)[known].mean() > 0.1
    for name in ("confidence", "dynamic", "pictures"):
        assert np.array_equal(getattr(seen, name), getattr(recorded, name)), name


def test_the_first_picture_is_measured(reconstructor: Reconstructor) -> None:
    empty = Memory(LocalMemoryStore()).field_at("w", 1, -1)
    pictures = observe(AHEAD, frames=(0,)).pictures
    seen, recorded = (
        how(empty, pictures, AHEAD, (0,)) for how in (reconstructor.measure, reconstructor.measure_recorded)
    )
    assert np.array_equal(seen.depth, recorded.depth) and (seen.depth > 0).all()


def test_the_first_picture_is_measured_in_the_mirror_too(reconstructor: Reconstructor) -> None:
    """AHEAD looks along the world's z from its origin, so the mirror image has the same camera."""
    empty = Memory(LocalMemoryStore()).field_at("w", 1, -1)
    pictures = observe(AHEAD, frames=(0,)).pictures
    one, other = (reconstructor.measure(empty, seen, AHEAD, (0,)).depth for seen in (pictures, pictures[:, :, ::-1]))
    np.testing.assert_allclose(other[:, :, ::-1], one, rtol=1e-4)


def test_pictures_of_another_size_are_refused(reconstructor: Reconstructor) -> None:
    field = reconstructor.memory.field_at("w", 1, 0)
    with pytest.raises(InvalidInput, match="pictures"):
        reconstructor.measure(field, np.zeros((1, 48, 80, 3), np.uint8), AHEAD, (1,))
