"""What a recipe refuses before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from teleworld.training.recipes import RECIPES, Job, train
from teleworld.world.errors import CheckpointError, InvalidInput, NotFound


def job(folder: Path, minutes: float = 1.0) -> Job:
    return Job("nano", folder / "data", folder / "run", folder / "export", minutes)


def test_every_network_that_the_command_line_offers_has_a_recipe():
    assert sorted(RECIPES) == ["dit", "dmd", "geometry", "vae", "vsr"]


def test_an_unknown_network_or_no_time_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput) as unknown:
        train("text", job(tmp_path))
    assert unknown.value.field == "network"
    with pytest.raises(InvalidInput) as never:
        train("vae", job(tmp_path, minutes=0))
    assert never.value.field == "minutes"


@pytest.mark.parametrize("network", ["vae", "geometry", "vsr"])
def test_without_recordings_there_is_nothing_to_train_on(network: str, tmp_path: Path):
    with pytest.raises(NotFound):
        train(network, job(tmp_path))


def test_the_transformer_needs_the_codec_first(tmp_path: Path):
    with pytest.raises(CheckpointError):
        train("dit", job(tmp_path))
