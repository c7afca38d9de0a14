"""The DiT at Wan2.1's configurations: public names and shapes, and the arithmetic of diffusers' transformer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from teleworld.models.checkpoint import load_into
from teleworld.models.dit import WAN_1_3B, WAN_14B, DiT, DiTConfig
from teleworld.models.naming import convert

# head_dim 32 splits over (t, h, w) as 12 + 10 + 10: unequal, like the published 44 + 42 + 42.
SMALL = DiTConfig(dim=64, ffn=96, heads=2, layers=3, channels=4, text_dim=24, frequency_dim=32)
FRAMES, HEIGHT, WIDTH, WORDS = 3, 6, 8, 7


@pytest.fixture(scope="module", autouse=True)
def _served():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def public_model(config: DiTConfig) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.channels + config.extra_channels,
        out_channels=config.channels,
        text_dim=config.text_dim,
        freq_dim=config.frequency_dim,
        ffn_dim=config.ffn,
        num_layers=config.layers,
        cross_attn_norm=True,
        eps=config.eps,
    ).eval()


def twins(config: DiTConfig) -> tuple[DiT, WanTransformer3DModel]:
    """Our model and the public one with the same weights, every one of them random, gains and biases too."""
    torch.manual_seed(3)
    theirs = public_model(config)
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    ours = DiT(config).eval()
    load_into(ours, convert(theirs.state_dict(), "wan"), strict=True)
    return ours, theirs


def inputs(config: DiTConfig) -> tuple[Tensor, Tensor]:
    """Noisy latents [2, channels + extra, F, h, w] and text embeddings [2, T, text_dim]."""
    generator = torch.Generator().manual_seed(5)
    channels = config.channels + config.extra_channels
    latents = torch.randn(2, channels, FRAMES, HEIGHT, WIDTH, generator=generator)
    return latents, torch.randn(2, WORDS, config.text_dim, generator=generator)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, heads=4), replace(SMALL, extra_channels=5), replace(SMALL, patch=(1, 1, 2))],
    ids=["text-to-video", "narrow-heads", "extra-channels", "other-patch"],
)
def test_agrees_with_diffusers_at_one_timestep_a_sample(config: DiTConfig):
    ours, theirs = twins(config)
    latents, text = inputs(config)
    timestep = torch.tensor([937.5, 250.0])
    noisy, extra = latents[:, : config.channels], latents[:, config.channels :]

    expected = theirs(latents, timestep, text).sample
    found = ours(
        noisy,
        timestep[:, None].expand(-1, FRAMES),
        range(1, FRAMES + 1),
        ours.read_text(text),
        extra=extra if config.extra_channels else None,
    )
    assert found.shape == expected.shape == noisy.shape
    assert relative(found, expected) < 1e-5


def test_agrees_with_diffusers_at_one_timestep_a_latent_frame():
    ours, theirs = twins(SMALL)
    latents, text = inputs(SMALL)
    timestep = torch.tensor([[0.0, 500.0, 1000.0], [625.0, 0.0, 833.0]])
    tokens = (HEIGHT // 2) * (WIDTH // 2)

    expected = theirs(latents, timestep.repeat_interleave(tokens, dim=1), text).sample
    found = ours(latents, timestep, range(1, FRAMES + 1), ours.read_text(text))
    assert relative(found, expected) < 1e-5


def test_the_order_of_frames_is_in_their_indices():
    """Frames given in another order, with their own indices, come out the same: nothing else tells them apart."""
    ours, _ = twins(SMALL)
    latents, text = inputs(SMALL)
    timestep = torch.full((2, FRAMES), 500.0)
    words = ours.read_text(text)
    straight = ours(latents, timestep, [2, 4, 6], words)
    turned = ours(latents.flip(2), timestep, [6, 4, 2], words)
    assert relative(turned.flip(2), straight) < 1e-5
    assert relative(ours(latents, timestep, [1, 2, 3], words), straight) > 1e-3


def test_a_model_that_has_sampled_can_be_trained():
    ours, _ = twins(replace(SMALL, heads=1))
    latents, text = inputs(SMALL)
    timestep = torch.full((2, FRAMES), 500.0)
    ours(latents, timestep, [1, 2, 3], ours.read_text(text))
    with torch.inference_mode(False), torch.enable_grad():
        student = DiT(replace(SMALL, heads=1))
        noisy, words = torch.randn(2, 4, FRAMES, HEIGHT, WIDTH), torch.randn(2, WORDS, SMALL.text_dim)
        student(noisy, timestep.clone(), [1, 2, 3], student.read_text(words)).square().mean().backward()
        assert student.patch_embedding.weight.grad is not None


@pytest.mark.parametrize("config", [WAN_1_3B, WAN_14B], ids=["1.3B", "14B"])
def test_published_names_and_shapes(config: DiTConfig):
    with torch.device("meta"):
        ours, theirs = DiT(config), public_model(config)
    public = {name: tensor.shape for name, tensor in convert(theirs.state_dict(), "wan").items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == public
