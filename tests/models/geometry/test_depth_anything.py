"""Depth Anything 3 behind the geometry interface, with its authors' network and random weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from teleworld.generation.model import load_model
from teleworld.models.checkpoint import save_safetensors
from teleworld.models.geometry.depth_anything import DepthAnythingConfig, DepthAnythingGeometry
from teleworld.world.errors import CheckpointError
from tests.models.geometry.test_vggt import inputs
from tests.tiny_model import write_tiny_model

MISSING = [
    name for name in ("depth_anything_3", "addict", "omegaconf", "einops") if importlib.util.find_spec(name) is None
]
needs_package = pytest.mark.skipif(bool(MISSING), reason=f"NOT TESTED: Depth Anything 3 needs {', '.join(MISSING)}")


@needs_package
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", [True, False], ids=["given poses", "found poses"])
def test_it_answers_in_metres_for_pictures_of_any_size(given: bool):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = DepthAnythingGeometry(DepthAnythingConfig("da3-small", longest=84, given_poses=given)).eval()
    assert all(name.startswith("model.") for name in network.state_dict())
    pictures, lens, poses, guidance = inputs(3)
    found = network.infer(pictures, lens, poses, guidance + 2.0)
    assert found.depth.shape == found.confidence.shape == found.dynamic.shape == (3, 40, 60)
    assert float(found.depth.median()) == pytest.approx(2.0, rel=0.05)
    assert 0 < float(found.confidence.min()) <= float(found.confidence.max()) <= 1
    assert not bool(found.dynamic.any())
    torch.testing.assert_close(found.pose_correction[-1], torch.zeros(6), rtol=0, atol=1e-5)
    again = network.infer(pictures, lens, poses, guidance + 2.0)
    assert torch.equal(found.depth, again.depth)


@needs_package
@pytest.mark.filterwarnings("ignore")
def test_a_published_file_serves_a_model_folder(tmp_path: Path):
    """Names as published, no configuration inside: the folder's description says what it is."""
    root = write_tiny_model(tmp_path)
    network = DepthAnythingGeometry(DepthAnythingConfig("da3-small", longest=56))
    save_safetensors(root / "nano" / "da3.safetensors", network.state_dict())
    geometry = {
        "file": "da3.safetensors",
        "architecture": "depth_anything_3",
        "config": {"name": "da3-small", "longest": 56},
    }
    (root / "nano" / "model.json").write_text(json.dumps({"networks": {"geometry": geometry}}))
    loaded = load_model("nano", root).geometry
    assert isinstance(loaded, DepthAnythingGeometry)
    assert loaded.config.longest == 56
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


@needs_package
@pytest.mark.filterwarnings("ignore")
def test_an_unknown_configuration_is_named():
    with pytest.raises(CheckpointError, match=r"'da3-huge' is none of .*da3-large"):
        DepthAnythingGeometry(DepthAnythingConfig("da3-huge"))


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "depth_anything_3.cfg", None)
    with pytest.raises(CheckpointError, match="Depth Anything 3 is not installed"):
        DepthAnythingGeometry(DepthAnythingConfig("da3-small"))
