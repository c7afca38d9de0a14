"""Networks in their public architectures behind a model folder: the services' cores work with them as with nano's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from teleworld.generation.decoder import Decoder
from teleworld.generation.model import Model, load_model, save_network
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.models.dit.config import DiTConfig
from teleworld.models.geometry.vggt.backend import VGGTGeometry
from teleworld.models.super_resolution.flashvsr import FlashVSR, FlashVSRConfig
from teleworld.world.camera import CameraPath, pose
from teleworld.world.latents import latent_digest
from teleworld.world.work import DecodeRequest, ReconstructRequest, TaskContext
from tests.models.geometry.small import SMALL
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny model with a small VGGT and a small FlashVSR in place of nano's networks."""
    root: Path = write_tiny_model(tmp_path_factory.mktemp("models"))
    vggt = replace(SMALL, encoder=replace(SMALL.encoder, depth=1, image=84))
    flash = FlashVSRConfig(
        dit=DiTConfig(dim=24, ffn=32, heads=2, layers=1, channels=4, text_dim=8),
        projection=(8, 8),
        decoder=(8, 8, 6, 6),
        prompt_tokens=3,
        scale=2,
        first_latents=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_network(root / "nano", "geometry", VGGTGeometry(vggt), architecture="vggt")
        save_network(root / "nano", "super_resolution", FlashVSR(flash), architecture="flash_vsr")
    return load_model("nano", root)


def context(model: Model) -> TaskContext:
    return TaskContext("worlds/a", 1, 0, "task", 0, 1, model.digest)


def test_the_decoder_shows_every_latent_at_once_with_flashvsr(public: Model):
    assert isinstance(public.super_resolution, FlashVSR)
    latents = np.random.default_rng(0).standard_normal((3, *public.spec.latent_shape)).astype(np.float32)
    decoder, shown = Decoder(public), []
    for index in (1, 2, 3):
        previous = latent_digest(latents[index - 2]) if index > 1 else ""
        request = DecodeRequest(context(public), index - 1, index, latents[index - 1 : index], previous, None)
        shown.append(decoder.decode(request))
    width, height = public.spec.output_size
    assert [(one.frames, one.width, one.height) for one in shown] == [(1, width, height)] + [(4, width, height)] * 2
    whole = Decoder(public).decode(DecodeRequest(context(public), 2, 3, latents, "", None))
    assert whole.video == shown[-1].video


def test_the_reconstructor_measures_with_vggt(public: Model):
    assert isinstance(public.geometry, VGGTGeometry)
    lens, frames = public.spec.lens, 3
    pictures = np.random.default_rng(1).integers(0, 256, (frames, lens.height, lens.width, 3), np.uint8)
    poses = np.stack([pose(0.0, 0.0, 0.1 * frame, 0.0) for frame in range(frames)])
    path = CameraPath(poses, np.tile(lens.at_pitch(0.0), (frames, 1)))
    request = ReconstructRequest(context(public), -1, pictures, path, tuple(range(frames)))
    reconstructor = Reconstructor(public, Memory(LocalMemoryStore()))
    found, again = reconstructor.reconstruct(request), reconstructor.reconstruct(request)
    assert found.revision == 0 and found.static_points > 0
    assert (again.static_points, again.median_depth) == (found.static_points, found.median_depth)
