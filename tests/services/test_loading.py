"""Workers load what their settings name, placed as they say, and tell the gateway what world it makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from services.common.loading import open_model
from services.planner.settings import PlannerSettings
from teleworld.models.float8 import Float8Linear
from teleworld.world.errors import CheckpointError, InvalidInput
from tests.wan_model import DIT, write_wan_model


def test_a_folder_of_public_checkpoints_is_served_in_8_bits(tmp_path: Path):
    write_wan_model(tmp_path / "served-wan")
    settings = PlannerSettings(model="served-wan", checkpoint=tmp_path, precision="float8")
    description, model = open_model(settings, "dit", "sampling", "vae", "text")
    assert description.name == "served-wan" and description.weights_digest == model.digest
    assert description.spec is not None and description.spec.latent_shape == (16, 6, 8)
    assert {"dit", "vae", "text"} <= set(model.__dict__), "no task waits for a network"
    eighth = [layer for layer in model.dit.modules() if isinstance(layer, Float8Linear)]
    assert len(eighth) == DIT.layers * (4 + 4 + 2)
    assert next(model.vae.parameters()).dtype == torch.bfloat16


def test_settings_that_cannot_be_met_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TELEWORLD_PRECISION", "float4")
    with pytest.raises(ValidationError, match="precision"):
        PlannerSettings()
    monkeypatch.setenv("TELEWORLD_PRECISION", "bfloat16")
    assert PlannerSettings().precision == "bfloat16"
    with pytest.raises(InvalidInput, match="device"):
        open_model(PlannerSettings(device="abacus"))
    with pytest.raises(CheckpointError, match="is not a folder"):
        open_model(PlannerSettings(model="nowhere", checkpoint=tmp_path))
