"""One set of weights, published in several ways, is the same network each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from teleworld.models.checkpoint import save_safetensors, weights_digest
from teleworld.models.naming import convert
from teleworld.models.pretrained import load_wan
from teleworld.models.stream_vae import WanStreamVAE, WanVAEConfig
from teleworld.world.errors import CheckpointError

CONFIG = WanVAEConfig(base_channels=4, latent_channels=2, latent_mean=(0.0, 0.0), latent_std=(1.0, 1.0))


def as_wan(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights


def as_diffusers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return convert(weights, "diffusers")


def as_trained(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    noise = {f"generator.model.{name}": torch.randn_like(tensor) for name, tensor in weights.items()}
    return noise | {f"generator_ema.model._fsdp_wrapped_module.{name}": t for name, t in weights.items()}


@pytest.mark.parametrize(("publish", "branch"), [(as_wan, None), (as_diffusers, None), (as_trained, "generator_ema")])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_each_form_loads(tmp_path: Path, publish, branch: str | None, device: str):
    original = WanStreamVAE(CONFIG)
    path = tmp_path / "vae.safetensors"
    save_safetensors(path, publish(original.state_dict()), {"step": "1"})
    with torch.device(device):
        loaded = WanStreamVAE(CONFIG)
    assert load_wan(loaded, path, branch=branch) == {"step": "1"}
    assert weights_digest(loaded) == weights_digest(original)


def test_a_checkpoint_of_another_size_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "vae.safetensors"
    weights = WanStreamVAE(CONFIG).state_dict()
    del weights["encoder.head.2.bias"]
    save_safetensors(path, weights)
    with pytest.raises(CheckpointError, match=r"vae\.safetensors: .*missing encoder\.head\.2\.bias"):
        load_wan(WanStreamVAE(CONFIG), path)
