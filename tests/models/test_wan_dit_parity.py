"""The DiT at Wan2.1's configurations: public names, shapes and sizes. That its arithmetic is the public one's, every row of
the parity table tells (tests/evaluation/test_parity.py)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from teleworld.evaluation.parity.dit import (
    FRAMES,
    HEIGHT,
    PICTURED,
    SMALL,
    WIDTH,
    inputs,
    predict,
    public_model,
    twins,
)
from teleworld.models.dit import WAN_1_3B, WAN_14B, WAN_14B_I2V, WAN_18B, DiT, DiTConfig, Parametrization
from teleworld.models.naming import convert
from teleworld.world.errors import InvalidInput


@pytest.fixture(scope="module", autouse=True)
def _served():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_the_order_of_frames_is_in_their_indices():
    """Frames given in another order, with their own indices, come out the same: nothing else tells them apart."""
    ours, _ = twins(SMALL)
    latents, text, _ = inputs(SMALL)
    timestep = torch.full((2, FRAMES), 500.0)
    words = ours.read_text(text)
    straight = ours(latents, timestep, [2, 4, 6], words)
    turned = ours(latents.flip(2), timestep, [6, 4, 2], words)
    assert relative(turned.flip(2), straight) < 1e-5
    assert relative(ours(latents, timestep, [1, 2, 3], words), straight) > 1e-3


def test_a_short_prompt_is_padded_with_zeros():
    ours, _ = twins(SMALL)
    latents, text, _ = inputs(SMALL)
    timestep = torch.full((2, FRAMES), 500.0)
    padded = text.clone()
    padded[:, 3:] = 0
    assert torch.equal(
        predict(ours, latents, timestep, text[:, :3], None), predict(ours, latents, timestep, padded, None)
    )


def test_the_picture_and_its_channels_are_read():
    ours, _ = twins(PICTURED)
    latents, text, picture = inputs(PICTURED)
    timestep = torch.full((2, FRAMES), 500.0)
    usual = predict(ours, latents, timestep, text, picture)
    assert relative(predict(ours, latents, timestep, text, -picture), usual) > 1e-4
    other = latents.clone()
    other[:, PICTURED.channels :] = 0
    assert relative(predict(ours, other, timestep, text, picture), usual) > 1e-4
    with pytest.raises(InvalidInput, match="picture: this configuration needs one"):
        ours.read_text(text)


def test_a_model_that_has_sampled_can_be_trained():
    config = replace(SMALL, heads=1)
    ours, _ = twins(config)
    latents, text, _ = inputs(config)
    timestep = torch.full((2, FRAMES), 500.0)
    ours(latents, timestep, [1, 2, 3], ours.read_text(text))
    with torch.inference_mode(False), torch.enable_grad():
        student = DiT(config)
        noisy, words = torch.randn(2, 4, FRAMES, HEIGHT, WIDTH), torch.randn(2, 7, config.text_dim)
        student(noisy, timestep.clone(), [1, 2, 3], student.read_text(words)).square().mean().backward()
        assert student.patch_embedding.weight.grad is not None


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(WAN_1_3B, 1_418_996_800), (WAN_14B, 14_288_491_584), (WAN_14B_I2V, 16_394_878_784)],
    ids=["1.3B", "14B", "14B I2V"],
)
def test_published_names_shapes_and_sizes(config: DiTConfig, parameters: int):
    with torch.device("meta"):
        ours, theirs = DiT(config), public_model(config)
    public = {name: tensor.shape for name, tensor in convert(theirs.state_dict(), "wan").items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == public
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == parameters


def test_the_papers_model_counts_18_billion_with_guidance_on_the_frame_dimension():
    with torch.device("meta"):
        ours = DiT(WAN_18B)
    assert sum(parameter.numel() for parameter in ours.parameters()) == pytest.approx(18e9, rel=0.03)
    assert ours.guidance_embedding is not None and ours.config.parametrization is Parametrization.VELOCITY


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"heads": 7}, r"dit\.heads"), ({"extra_channels": 3}, r"dit\.extra_channels"), ({"ffn": 0}, "dit")],
)
def test_impossible_configurations_are_refused(changes, field: str):
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        replace(SMALL, **changes)
