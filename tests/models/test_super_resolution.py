"""Streaming super-resolution: any chunking gives the same pixels, attention stays local, untrained means bicubic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from teleworld.models.checkpoint import save_safetensors
from teleworld.models.stream_vae import DecoderGuidance, StreamState
from teleworld.models.super_resolution import (
    SuperResolution,
    SuperResolutionConfig,
    load_super_resolution,
    save_super_resolution,
)
from teleworld.models.super_resolution.attention import BlockGrid, LocalSparseAttention
from teleworld.world.errors import CheckpointError, InvalidInput

SMALL = SuperResolutionConfig(channels=8, blocks=(1, 1), head_channels=4, token_channels=8, layers=2, past_frames=3)


def awake(config: SuperResolutionConfig = SMALL) -> SuperResolution:
    """A network whose every part shows in its output, for evaluation."""
    torch.manual_seed(0)
    network = SuperResolution(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network


def clip(frames: int = 7, height: int = 48, width: int = 56, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, frames, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def bicubic(pixels: Tensor, scale: int = 2) -> Tensor:
    flat = pixels.transpose(1, 2).flatten(0, 1)
    wide = functional.interpolate(flat, scale_factor=scale, mode="bicubic")
    return wide.unflatten(0, (len(pixels), -1)).transpose(1, 2)


@pytest.mark.parametrize("chunks", [[1, 1, 1, 1, 1, 1, 1], [1, 4, 2], [5, 2], [3, 4]])
@torch.inference_mode()
def test_any_chunking_gives_the_very_same_pixels(chunks: list[int]) -> None:
    network, pixels = awake(), clip(batch=2)
    state = network.new_state()
    streamed = torch.cat([network.upscale_chunk(chunk, state) for chunk in pixels.split(chunks, dim=2)], dim=2)
    assert streamed.shape == (2, 3, 7, 96, 112)
    assert torch.equal(streamed, network.upscale(pixels))
    assert state.frames == 7


@torch.inference_mode()
def test_a_stream_goes_on_from_a_copy_or_from_bytes() -> None:
    network, pixels = awake(), clip()
    state = network.new_state()
    network.upscale_chunk(pixels[:, :, :4], state)
    fork, moved = state.clone(), StreamState.from_bytes(state.to_bytes())
    rest = network.upscale_chunk(pixels[:, :, 4:], state)
    for other in (fork, moved):
        assert torch.equal(network.upscale_chunk(pixels[:, :, 4:], other), rest)


@torch.inference_mode()
def test_the_state_is_bounded() -> None:
    network, state = awake(), awake().new_state()
    sizes = []
    for _ in range(4):
        network.upscale_chunk(clip(2), state)
        sizes.append(state.nbytes)
    assert sizes[0] < sizes[1] == sizes[2] == sizes[3]


@torch.inference_mode()
def test_the_past_matters_and_the_future_does_not() -> None:
    network, pixels = awake(), clip()
    whole = network.upscale(pixels)
    changed = pixels.clone()
    changed[:, :, 4] = -changed[:, :, 4]
    other = network.upscale(changed)
    assert torch.equal(other[:, :, :4], whole[:, :, :4])
    assert not torch.equal(other[:, :, 5], whole[:, :, 5])
    alone = awake(replace(SMALL, past_frames=0))
    assert torch.equal(alone.upscale(pixels)[:, :, 5:], alone.upscale(changed)[:, :, 5:])


@torch.inference_mode()
def test_attention_is_local_in_space() -> None:
    """One layer: a token of block (0, 0) cannot see beyond block (1, 1), that is 2 x 4 tokens."""
    attention = LocalSparseAttention(replace(SMALL, top_blocks=100)).eval()
    grid = BlockGrid(12, 20, 4, torch.device("cpu"))
    tokens = torch.randn(1, 12, 20, 8)
    far = tokens.clone()
    far[:, :, 8:] += 1
    first, second = (
        grid.to_grid(attention(grid.to_blocks(kind), grid, StreamState("test"), "slot")) for kind in (tokens, far)
    )
    assert torch.allclose(first[:, :, :4], second[:, :, :4], atol=1e-6)
    assert (first[:, :, 4:8] - second[:, :, 4:8]).abs().max() > 1e-4


@torch.inference_mode()
def test_attention_equals_its_definition_when_all_blocks_are_chosen() -> None:
    """Against plain masked attention over all tokens: inside the 3x3 blocks, with the bias of the offset."""
    torch.manual_seed(3)
    config = replace(SMALL, top_blocks=100, block=2, past_frames=1)
    attention = LocalSparseAttention(config).eval()
    torch.nn.init.normal_(attention.bias)
    height, width = 5, 7
    grid = BlockGrid(height, width, 2, torch.device("cpu"))
    frames = torch.randn(2, 1, height, width, 8)
    state = StreamState("test")
    for frame in frames:
        got = grid.to_grid(attention(grid.to_blocks(frame), grid, state, "slot"))

    query, _, _ = attention.query_key_value(frames[1]).reshape(height * width, 3, 2, 4).unbind(1)
    _, key, value = attention.query_key_value(frames).reshape(2 * height * width, 3, 2, 4).unbind(1)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([y.flatten(), x.flatten()], dim=1)
    past = at.repeat(2, 1)
    near = ((at[:, None] // 2 - past[None] // 2).abs() <= 1).all(-1)
    offset = (past[None] - at[:, None] + 3).clamp(0, 6)
    age = torch.arange(2).repeat_interleave(height * width).expand(height * width, -1)
    bias = attention.bias[:, age, offset[..., 0], offset[..., 1]]
    score = torch.einsum("qhd,khd->hqk", query, key) / 2 + bias
    weight = score.masked_fill(~near, -torch.inf).softmax(-1)
    expected = attention.out(torch.einsum("hqk,khd->qhd", weight, value).reshape(1, height, width, 8))
    assert torch.allclose(got, expected, atol=1e-5)


@torch.inference_mode()
def test_blocks_survive_the_way_there_and_back() -> None:
    grid = BlockGrid(5, 7, 4, torch.device("cpu"))
    tokens = torch.randn(2, 5, 7, 3)
    blocks = grid.to_blocks(tokens)
    assert blocks.shape == (2, 4, 16, 3) and grid.padded
    assert torch.equal(grid.to_grid(blocks), tokens)
    assert int((~grid.padding).sum()) == 35


@pytest.mark.parametrize("scale", [2, 4])
@torch.inference_mode()
def test_untrained_is_bicubic(scale: int) -> None:
    network, pixels = SuperResolution(replace(SMALL, scale=scale)).eval(), clip(2)
    assert torch.allclose(network.upscale(pixels), bicubic(pixels, scale).clamp(-1, 1), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (96, 160), (40, 136)])
@torch.inference_mode()
def test_sizes_are_free(height: int, width: int) -> None:
    assert awake().upscale(clip(2, height, width)).shape == (1, 3, 2, 2 * height, 2 * width)


@torch.inference_mode()
def test_guidance_is_used_where_it_is_valid() -> None:
    network, pixels = awake(replace(SMALL, guided=True)), clip(3, 16, 24)
    seen = DecoderGuidance(torch.rand(pixels.shape), torch.ones(1, 1, *pixels.shape[2:]))
    hidden = DecoderGuidance(seen.pixels, torch.zeros_like(seen.mask))
    plain = network.upscale(pixels)
    assert torch.equal(network.upscale(pixels, hidden), plain)
    assert not torch.equal(network.upscale(pixels, seen), plain)
    unguided = awake()
    assert torch.equal(unguided.upscale(pixels, seen), unguided.upscale(pixels))


def test_every_weight_learns() -> None:
    network = awake().train()
    network.upscale(clip(3, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 16, 16),
        torch.zeros(1, 4, 1, 16, 16),
        torch.zeros(1, 3, 0, 16, 16),
        torch.zeros(1, 3, 1, 12, 16),
        torch.zeros(1, 3, 1, 16, 16, dtype=torch.uint8),
    ],
)
def test_wrong_pixels_are_named_and_change_nothing(pixels: Tensor) -> None:
    network = awake()
    state = network.new_state()
    with pytest.raises(InvalidInput, match="pixels"):
        network.upscale_chunk(pixels, state)
    assert state.fresh and not state.names()


def test_foreign_states_and_guidance_are_refused() -> None:
    network, state = awake(), awake().new_state()
    with pytest.raises(InvalidInput, match="state"):
        network.upscale_chunk(clip(1), StreamState("wan.decoder"))
    network.upscale_chunk(clip(1, 48, 56), state)
    with pytest.raises(InvalidInput, match="state"):
        network.upscale_chunk(clip(1, 96, 160), state)
    hint = DecoderGuidance(torch.zeros(1, 3, 1, 48, 56), torch.zeros(1, 1, 1, 48, 56))
    with pytest.raises(InvalidInput, match=r"guidance\.pixels"):
        network.upscale(clip(1, 96, 160), hint)


@pytest.mark.parametrize("wrong", [{"scale": 3}, {"heads": 3}, {"channels": 0}])
def test_configurations_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match=f"config.({'|'.join([*wrong, 'token_channels'])})"):
        replace(SMALL, **wrong)


@torch.inference_mode()
def test_a_checkpoint_brings_its_configuration(tmp_path: Path) -> None:
    network = awake()
    save_super_resolution(tmp_path / "sr.safetensors", network, {"step": "7"})
    loaded = load_super_resolution(tmp_path / "sr.safetensors")
    assert loaded.config == SMALL and not loaded.training
    assert (loaded.upscale(clip(2)) - network.upscale(clip(2))).abs().max() < 5e-3  # float16 on disk
    save_safetensors(tmp_path / "other.safetensors", {"x": torch.zeros(1)}, {"config": "{}"})
    with pytest.raises(CheckpointError):
        load_super_resolution(tmp_path / "other.safetensors")
