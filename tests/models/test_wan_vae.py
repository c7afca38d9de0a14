"""Wan's VAEs: a stream that any cut into chunks, any fork and any restart leaves the same. That the numbers are the public
ones, every row of the parity table tells (tests/evaluation/test_parity.py)."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from teleworld.models.stream_vae import WAN21_VAE, WAN22_VAE, DecoderGuidance, StreamState, WanStreamVAE, WanVAEConfig
from teleworld.world.errors import InvalidInput

SMALL = WanVAEConfig(
    base_channels=8, latent_channels=4, latent_mean=(0.1, -0.2, 0.3, 0.0), latent_std=(1.0, 2.0, 0.5, 1.5)
)


@pytest.fixture(scope="module", autouse=True)
def _served():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


def small_vae(config: WanVAEConfig = SMALL) -> WanStreamVAE:
    """A VAE in which every parameter, gains and biases too, is random: a layer left out cannot go unseen."""
    torch.manual_seed(7)
    vae = WanStreamVAE(config).eval()
    for parameter in vae.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return vae


@pytest.fixture(scope="module")
def vae(_served) -> WanStreamVAE:
    return small_vae()


@pytest.fixture(scope="module")
def pixels(_served) -> Tensor:
    """[2, 3, 13, 16, 24]."""
    return torch.rand(2, 3, 13, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def latents(vae: WanStreamVAE, pixels: Tensor) -> Tensor:
    """[2, 4, 4, 2, 3]."""
    return vae.encode(pixels)


def test_published_size_and_constants():
    with torch.device("meta"):
        vae = WanStreamVAE(WAN21_VAE)
        defaults = AutoencoderKLWan().config  # the public constructor's defaults are the published model
    assert sum(parameter.numel() for parameter in vae.parameters()) == 126_892_531
    assert (vae.latent_channels, vae.spatial_stride, vae.temporal_stride) == (16, 8, 4)
    assert WAN21_VAE.latent_mean == tuple(defaults.latents_mean)
    assert WAN21_VAE.latent_std == tuple(defaults.latents_std)


def test_published_size_of_the_second_generation():
    with torch.device("meta"):
        vae = WanStreamVAE(WAN22_VAE)
    assert sum(parameter.numel() for parameter in vae.parameters()) == 704_688_668
    assert (vae.latent_channels, vae.spatial_stride, vae.temporal_stride) == (48, 16, 4)


@pytest.mark.parametrize("cuts", [(1, 4, 4, 4), (1, 8, 4), (1, 4, 8), (1, 12)])
def test_encoding_does_not_depend_on_the_cuts(vae: WanStreamVAE, pixels: Tensor, latents: Tensor, cuts):
    state = vae.new_encoder_state()
    streamed = torch.cat([vae.encode_chunk(chunk, state) for chunk in pixels.split(cuts, dim=2)], dim=2)
    torch.testing.assert_close(streamed, latents, rtol=0, atol=1e-5)
    assert state.frames == 13


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1), (1, 2, 1), (2, 2), (1, 3), (3, 1), (4,)])
def test_decoding_does_not_depend_on_the_cuts(vae: WanStreamVAE, latents: Tensor, cuts):
    state = vae.new_decoder_state()
    chunks = [vae.decode_chunk(chunk, state) for chunk in latents.split(cuts, dim=2)]
    assert [chunk.shape[2] for chunk in chunks] == [
        4 * cut - (3 if first == 0 else 0) for first, cut in enumerate(cuts)
    ]
    torch.testing.assert_close(torch.cat(chunks, dim=2), vae.decode(latents), rtol=0, atol=1e-5)


def test_later_frames_do_not_change_earlier_ones(vae: WanStreamVAE, pixels: Tensor, latents: Tensor):
    other = pixels.clone()
    other[:, :, 9:] = -other[:, :, 9:]
    assert torch.equal(vae.encode(other)[:, :, :3], latents[:, :, :3])
    changed = latents.clone()
    changed[:, :, 2:] += 1
    assert torch.equal(vae.decode(changed)[:, :, :5], vae.decode(latents)[:, :, :5])


def test_one_network_serves_many_sessions_and_forks(vae: WanStreamVAE, latents: Tensor):
    whole = vae.decode(latents)
    mirrored = vae.decode(latents.flip(2))
    one, two = vae.new_decoder_state(), vae.new_decoder_state()
    for index in range(2):
        vae.decode_chunk(latents[:, :, index : index + 1], one)
        vae.decode_chunk(latents.flip(2)[:, :, index : index + 1], two)
    fork = one.clone()
    vae.decode_chunk(torch.zeros_like(latents), fork)
    torch.testing.assert_close(vae.decode_chunk(latents[:, :, 2:], one), whole[:, :, 5:], rtol=0, atol=1e-5)
    torch.testing.assert_close(vae.decode_chunk(latents.flip(2)[:, :, 2:], two), mirrored[:, :, 5:], rtol=0, atol=1e-5)


def test_a_stream_goes_on_from_bytes(vae: WanStreamVAE, pixels: Tensor, latents: Tensor):
    state = vae.new_encoder_state()
    vae.encode_chunk(pixels[:, :, :1], state)
    vae.encode_chunk(pixels[:, :, 1:5], state)
    document = state.to_bytes()
    moved = StreamState.from_bytes(document)
    assert (moved.kind, moved.frames, moved.nbytes, moved.names()) == (state.kind, 5, state.nbytes, state.names())
    assert moved.to_bytes() == document
    assert torch.equal(vae.encode_chunk(pixels[:, :, 5:], moved), vae.encode_chunk(pixels[:, :, 5:], state))


def test_the_state_does_not_grow(vae: WanStreamVAE, latents: Tensor):
    state = vae.new_decoder_state()
    sizes = []
    for _ in range(4):
        vae.decode_chunk(latents[:, :, :1], state)
        sizes.append(state.nbytes)
    assert sizes[1] == sizes[2] == sizes[3]
    once = vae.new_decoder_state()
    vae.decode_chunk(latents, once)
    assert once.nbytes == sizes[-1]
    assert len(once.to_bytes()) < once.nbytes + 20_000, "a slot keeps more than its own elements"


def test_a_refused_chunk_leaves_the_state_as_it_was(vae: WanStreamVAE, pixels: Tensor, latents: Tensor):
    state = vae.new_encoder_state()
    vae.encode_chunk(pixels[:, :, :1], state)
    before = state.to_bytes()
    with pytest.raises(InvalidInput, match=r"state: wan\.encoder slot encoder\.conv1"):
        vae.encode_chunk(pixels[:, :, 1:5, :, :16], state)  # narrower than the stream so far
    with pytest.raises(InvalidInput, match="multiple of 4 frames, got 3"):
        vae.encode_chunk(pixels[:, :, 1:4], state)
    with pytest.raises(InvalidInput, match=r"expected a state of kind wan\.decoder"):
        vae.decode_chunk(latents, state)
    assert state.to_bytes() == before


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((1, 3, 5, 16, 16), "the first chunk of a stream has 1 frame, got 5"),
        ((1, 3, 1, 12, 16), "12 x 16 is not a multiple of 8"),
        ((1, 4, 1, 16, 16), r"expected \[B, 3, F, H, W\]"),
        ((3, 1, 16, 16), r"expected \[B, 3, F, H, W\]"),
        ((1, 3, 0, 16, 16), r"expected \[B, 3, F, H, W\]"),
    ],
)
def test_wrong_pixels_are_refused(vae: WanStreamVAE, shape, problem: str):
    with pytest.raises(InvalidInput, match=f"pixels: .*{problem}"):
        vae.encode_chunk(torch.zeros(shape), vae.new_encoder_state())


def test_wrong_sequences_and_dtypes_are_refused(vae: WanStreamVAE):
    with pytest.raises(InvalidInput, match=r"1 \+ k \* 4 frames, got 4"):
        vae.encode(torch.zeros(1, 3, 4, 16, 16))
    with pytest.raises(InvalidInput, match=r"floating dtype, got torch\.uint8"):
        vae.encode(torch.zeros(1, 3, 1, 16, 16, dtype=torch.uint8))
    with pytest.raises(InvalidInput, match=r"latents: expected \[B, 4, F, H, W\]"):
        vae.decode(torch.zeros(1, 16, 1, 2, 2))


def test_guidance_is_checked_and_makes_no_difference(vae: WanStreamVAE, latents: Tensor):
    with pytest.raises(InvalidInput, match=r"guidance\.mask"):
        DecoderGuidance(torch.zeros(2, 3, 13, 16, 24), torch.zeros(2, 1, 12, 16, 24))
    short = DecoderGuidance(torch.zeros(2, 3, 12, 16, 24), torch.zeros(2, 1, 12, 16, 24))
    with pytest.raises(InvalidInput, match=r"guidance\.pixels: expected \[2, 3, 13, 16, 24\]"):
        vae.decode(latents, short)
    exact = DecoderGuidance(torch.zeros(2, 3, 13, 16, 24), torch.zeros(2, 1, 13, 16, 24))
    assert torch.equal(vae.decode(latents, exact), vae.decode(latents))


@pytest.mark.parametrize("document", [b"", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(40), bytes(64)])
def test_bytes_that_are_no_state_are_refused(document: bytes):
    with pytest.raises(InvalidInput, match="state"):
        StreamState.from_bytes(document)


def test_a_cut_or_foreign_document_is_refused(vae: WanStreamVAE, pixels: Tensor):
    state = vae.new_encoder_state()
    vae.encode_chunk(pixels[:, :, :1], state)
    document = state.to_bytes()
    with pytest.raises(InvalidInput, match="state"):
        StreamState.from_bytes(document[:-1])
    with pytest.raises(InvalidInput, match="not a stream state"):
        StreamState.from_bytes(document.replace(b"teleworld.stream_state/1", b"teleworld.stream_state/9"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"latent_channels": 0}, "vae"),
        ({"temporal_down": (True,)}, r"vae\.temporal_down"),
        ({"latent_mean": (0.0,)}, r"vae\.latent_mean"),
        ({"latent_std": (0.0,) * 16}, r"vae\.latent_std"),
        ({"base_channels": 3, "multipliers": (1, 1, 2, 4)}, r"vae\.base_channels"),
    ],
)
def test_impossible_configurations_are_refused(changes, field: str):
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        WanVAEConfig(**changes)
