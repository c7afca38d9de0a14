"""A model folder of the nano family with tiny random networks: real code paths, a hundredth of the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from teleworld.generation.model import Sampling, save_network
from teleworld.models.dit import NANO, DiT
from teleworld.models.geometry import GeometryConfig, GeometryNetwork
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig


def write_tiny_model(root: Path, seed: int = 0) -> Path:
    """Write `root`/nano and return `root`."""
    folder = root / "nano"
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = PatchVAE(PatchVAEConfig(widths=(16, 8, 8), depths=(1, 1, 1)))
        values = vae.basis.shape[1]
        vae.basis.copy_(torch.linalg.qr(torch.randn(values, vae.latent_channels))[0].T)
        vae.scale.fill_(4.0)
        dit = DiT(replace(NANO, dim=48, ffn=64, heads=2, layers=2))
        torch.nn.init.normal_(dit.head.head.weight, std=0.1)
        save_network(folder, "vae", vae)
        save_network(folder, "dit", dit, sampling=Sampling(steps=2))
        geometry = GeometryConfig(
            stem_channels=(4, 4, 8), width=16, heads=1, head_channels=(8, 8, 8, 8), saliency_width=4
        )
        measure = GeometryNetwork(geometry)
        measure.depth_head.answer.bias.data[2] = 3.0  # sure of itself, so that the memory fills
        save_network(folder, "geometry", measure)
        save_network(
            folder,
            "super_resolution",
            SuperResolution(
                SuperResolutionConfig(channels=8, blocks=(1, 1), head_channels=4, token_channels=8, heads=1)
            ),
        )
    return root
