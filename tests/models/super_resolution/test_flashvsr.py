"""FlashVSR: its sparse attention against a dense masked oracle, its stream, its names, and any size of picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.architectures import ARCHITECTURES, recognise
from teleworld.models.dit.config import DiTConfig
from teleworld.models.stream_vae.state import StreamState
from teleworld.models.super_resolution.flashvsr import FLASH_VSR, FlashVSR, FlashVSRConfig
from teleworld.models.super_resolution.flashvsr.checkpoint import merged
from teleworld.models.super_resolution.flashvsr.layers import ConditionalDecoder, LowQualityProjection, matched_colours
from teleworld.models.super_resolution.flashvsr.lcsa import attend_to, choose, from_windows, neighbours, to_windows
from teleworld.world.errors import CheckpointError, InvalidInput
from tests.models.super_resolution import literal

SMALL = FlashVSRConfig(
    dit=DiTConfig(dim=24, ffn=32, heads=2, layers=2, channels=4, text_dim=8, text_length=3),
    projection=(8, 12),
    decoder=(8, 8, 6, 6),
    prompt_tokens=3,
    scale=2,
    sparsity=0.06,
    local_range=3,
    kv_windows=2,
    first_latents=2,
)


@pytest.fixture(scope="module")
def network() -> FlashVSR:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = FlashVSR(SMALL)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    torch.nn.init.normal_(made.prompt)
    return made.eval().requires_grad_(False)


def footage(frames: int, height: int = 64, width: int = 64) -> Tensor:
    """Coarse noise that changes from frame to frame: [1, 3, frames, height, width]."""
    source = torch.Generator().manual_seed(frames)
    small = torch.rand(frames, 3, 6, 8, generator=source)
    return F.interpolate(small, (height, width), mode="bilinear").mul(2).sub(1).transpose(0, 1)[None]


@pytest.mark.parametrize("top", [0, 3, 11, 40, 10_000])
def test_sparse_attention_is_the_dense_one_under_the_rule(top: int):
    torch.manual_seed(top)
    grid, key_grid, heads, width = (2, 16, 24), (4, 16, 24), 2, 6
    q, k, v = (
        torch.randn(1, math.prod(size), heads, width, dtype=torch.float64) for size in (grid, key_grid, key_grid)
    )
    windows = [to_windows(x, size) for x, size in ((q, grid), (k, key_grid), (v, key_grid))]
    near = neighbours(2, 3, 3, q.device)
    chosen = choose(windows[0], windows[1], near, top)
    found = from_windows(attend_to(*windows, chosen), grid)
    expected = literal.attention(q[0], k[0], v[0], grid, key_grid, 3, top)
    torch.testing.assert_close(found[0], expected, rtol=1e-9, atol=1e-12)
    if top < 40:
        assert int(chosen.sum()) == heads * top
    assert not bool(chosen[:, :, :, 0, 2].any())  # two blocks to the right: out of reach


def test_windows_and_back():
    x = torch.arange(2 * 4 * 16 * 8 * 3).view(2, -1, 3, 1)
    windows = to_windows(x, (4, 16, 8))
    assert windows.shape == (2, 3, 2, 2, 128, 1)
    assert torch.equal(from_windows(windows, (4, 16, 8)), x)
    tokens = x[0, :, 0, 0].view(4, 16, 8)
    assert torch.equal(windows[0, 0, 1, 1, :, 0], tokens[2:, 8:, :].flatten())


def test_the_budget_follows_the_published_rule():
    """s * 768 * 1280 / (H * W) of all pairs of a window, less one: independent of the picture's size but for rounding."""
    assert FLASH_VSR.top_blocks(768, 1280) == 60 * 60 * 2 - 1
    assert FLASH_VSR.top_blocks(896, 1792) == int(98 * 98 * (2.0 * 768 * 1280 / (896 * 1792))) - 1
    assert replace(FLASH_VSR, sparsity=0.3).top_blocks(256, 384) == 107  # 36 * 3, which another order rounds down
    assert replace(FLASH_VSR, sparsity=1.5).top_blocks(768, 1280) == 60 * 60 * 3 // 2 - 1


def test_the_decoder_and_projection_have_the_published_names_and_sizes():
    with torch.device("meta"):
        decoder = ConditionalDecoder(16, FLASH_VSR.decoder)
        projection = LowQualityProjection(FLASH_VSR.projection, 1536)
    shapes = {name: tuple(value.shape) for name, value in decoder.state_dict().items()}
    assert sum(math.prod(shape) for shape in shapes.values()) == pytest.approx(45.3e6, rel=0.01)
    assert shapes["decoder.1.weight"] == (512, 784, 3, 3)
    assert shapes["decoder.3.weight"] == (512, 512, 3, 3) and "decoder.3.bias" not in shapes
    assert shapes["decoder.5.conv.0.weight"] == (512, 1024, 3, 3)
    assert shapes["decoder.9.conv.weight"] == (512, 512, 1, 1)
    assert shapes["decoder.15.conv.weight"] == (512, 256, 1, 1)
    assert shapes["decoder.22.weight"] == (128, 128, 3, 3) and shapes["decoder.26.bias"] == (3,)
    shapes = {name: tuple(value.shape) for name, value in projection.state_dict().items()}
    assert shapes == {
        "conv1.weight": (2048, 768, 4, 3, 3),
        "conv1.bias": (2048,),
        "norm1.gamma": (2048, 1, 1, 1),
        "conv2.weight": (3072, 2048, 4, 3, 3),
        "conv2.bias": (3072,),
        "norm2.gamma": (3072, 1, 1, 1),
        "linear_layers.0.weight": (1536, 3072),
        "linear_layers.0.bias": (1536,),
    }


def test_published_files_become_one_that_is_recognised_and_loads(network: FlashVSR):
    state = network.state_dict()
    parts: dict[str, dict[str, Tensor]] = {"LQ_proj_in": {}, "TCDecoder": {}, "transformer": {}}
    for name, value in state.items():
        top, _, rest = name.partition(".")
        if name != "prompt":
            parts[top if top in parts else "transformer"][rest if top in parts else name] = value
    whole = merged(parts["transformer"], parts["LQ_proj_in"], parts["TCDecoder"], state["prompt"][0])
    assert whole.keys() == state.keys()
    FlashVSR(SMALL).load_state_dict(whole, strict=True)
    found = recognise({name: tuple(value.shape) for name, value in whole.items()})
    assert found is not None and found[0] == "flash_vsr" and "heads" in found[1].doubt
    assert found[1].config.decoder == SMALL.decoder and found[1].config.dit.layers == 2
    with torch.device("meta"):
        published = FlashVSR(FLASH_VSR).state_dict()
    found = recognise({name: tuple(value.shape) for name, value in published.items()})
    assert found is not None and (found[1].title, found[1].config) == ("FlashVSR", FLASH_VSR)
    assert ARCHITECTURES["flash_vsr"].module is FlashVSR
    with pytest.raises(CheckpointError, match="prompt"):
        merged({}, {}, {}, torch.zeros(2, 3, 8))


@pytest.mark.parametrize("cuts", [(1, 5, 9, 13, 17, 21), (3, 20, 21), (12, 13)])
def test_any_chunking_of_a_stream_shows_the_same(network: FlashVSR, cuts: tuple[int, ...]):
    video = footage(21)
    whole = network.upscale(video)
    assert whole.shape == (1, 3, 21, 128, 128)
    state, parts, start = network.new_state(), [], 0
    for cut in cuts:
        parts.append(network.push(video[:, :, start:cut], state))
        start = cut
        state = StreamState.from_bytes(state.to_bytes())
    if start < 21:
        parts.append(network.push(video[:, :, start:], state))
    parts.append(network.finish(state))
    assert torch.equal(torch.cat(parts, dim=2), whole)


def test_a_step_needs_four_frames_more_than_it_shows(network: FlashVSR):
    """The first chunk of two latents is 1 + 4 frames, every later one 4 + 4."""
    video, state, shown = footage(17), network.new_state(), []
    for frame in range(17):
        shown.append(network.push(video[:, :, frame : frame + 1], state).shape[2])
    assert [(frame + 1, count) for frame, count in enumerate(shown) if count] == [(9, 5), (17, 8)]


def test_what_is_seen_later_does_not_change_what_was_shown(network: FlashVSR):
    first, other = footage(21), footage(21)
    other[:, :, 17:] = -other[:, :, 17:]
    shown = [network.push(video, network.new_state()) for video in (first, other)]
    assert torch.equal(shown[0][:, :, :13], shown[1][:, :, :13])
    assert not torch.equal(network.upscale(first)[:, :, 13:], network.upscale(other)[:, :, 13:])


def test_the_cache_is_bounded_and_used(network: FlashVSR):
    video, state = footage(41), network.new_state()
    sizes = []
    for start in range(0, 41, 8):
        network.push(video[:, :, start : start + 8], state)
        sizes.append(state.nbytes)
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3] == sizes[4] > sizes[5]
    assert state.held("blocks.0.keys").shape[2] == SMALL.kv_windows
    forgetful = FlashVSR(replace(SMALL, kv_windows=0)).eval()
    forgetful.load_state_dict(network.state_dict())
    with torch.no_grad():
        other = forgetful.upscale(video[:, :, :17])
    found = network.upscale(video[:, :, :17])
    assert torch.equal(other[:, :, :5], found[:, :, :5])
    assert not torch.allclose(other[:, :, 5:], found[:, :, 5:])


def test_every_chunk_can_be_answered_at_once(network: FlashVSR):
    video, state, shown = footage(13), network.new_state(), []
    for start, stop in ((0, 1), (1, 5), (5, 9), (9, 13)):
        shown.append(network.upscale_chunk(video[:, :, start:stop], state))
        assert shown[-1].shape == (1, 3, stop - start, 128, 128)
    still = footage(1).expand(-1, -1, 13, -1, -1)
    state, again = network.new_state(), []
    for start, stop in ((0, 1), (1, 5), (5, 9), (9, 13)):
        again.append(network.upscale_chunk(still[:, :, start:stop], state))
    # Where nothing moves, what was foreseen is what came.
    torch.testing.assert_close(torch.cat(again, dim=2), network.upscale(still), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(48, 80), (50, 33)])
def test_any_size_of_picture(network: FlashVSR, height: int, width: int):
    video = footage(5, height, width)
    found = network.upscale(video)
    assert found.shape == (1, 3, 5, 2 * height, 2 * width)
    assert bool(found.isfinite().all())


def test_colours_are_those_of_the_low_quality_frame():
    frames, low = torch.randn(1, 3, 2, 8, 8), torch.randn(1, 3, 2, 8, 8) * 0.3 + 0.2
    found = matched_colours(frames, low)
    torch.testing.assert_close(found.mean((3, 4)), low.mean((3, 4)), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std((3, 4)), low.std((3, 4)), rtol=1e-3, atol=1e-4)


def test_faults_are_named_and_leave_the_stream_as_it_was(network: FlashVSR):
    state = network.new_state()
    network.push(footage(9), state)
    before = state.to_bytes()
    with pytest.raises(InvalidInput, match="pixels"):
        network.push(torch.zeros(1, 4, 1, 64, 64), state)
    with pytest.raises(InvalidInput, match="state"):
        network.push(footage(9, 64, 80), state)
    assert state.to_bytes() == before
    for wrong in ({"scale": 3}, {"first_latents": 3}, {"local_range": 4}):
        with pytest.raises(InvalidInput, match="config"):
            replace(SMALL, **wrong)
