"""Tiny autoencoders of the TAEHV form: the public names and size, and a stream that does not depend on its cuts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.recognition import tiny_vae
from teleworld.models.stream_vae.tiny import TAEW21, TinyStreamVAE, TinyVAEConfig
from teleworld.world.errors import InvalidInput

SMALL = TinyVAEConfig(channels=4, widths=(16, 12, 8, 8), encoder_width=8)


@pytest.fixture(scope="module")
def vae() -> TinyStreamVAE:
    torch.manual_seed(0)
    return TinyStreamVAE(SMALL).eval().requires_grad_(False)


def test_published_names_and_size():
    with torch.device("meta"):
        vae = TinyStreamVAE()
    names = vae.state_dict()
    assert sum(parameter.numel() for parameter in vae.parameters()) == 11_315_539
    # The first, an inner and the last layer of each half, as the public file numbers them.
    assert {
        "encoder.0.weight": (64, 3, 3, 3),
        "encoder.2.conv.weight": (64, 128, 1, 1),
        "encoder.3.weight": (64, 64, 3, 3),
        "encoder.17.weight": (16, 64, 3, 3),
        "decoder.1.weight": (256, 16, 3, 3),
        "decoder.3.conv.0.weight": (256, 512, 3, 3),
        "decoder.7.conv.weight": (256, 256, 1, 1),
        "decoder.8.weight": (128, 256, 3, 3),
        "decoder.13.conv.weight": (256, 128, 1, 1),
        "decoder.19.conv.weight": (128, 64, 1, 1),
        "decoder.22.bias": (3,),
    }.items() <= {name: tuple(tensor.shape) for name, tensor in names.items()}.items()
    assert {"decoder.8.bias", "decoder.4.skip.weight", "encoder.3.bias"}.isdisjoint(names)


@pytest.mark.parametrize("config", [TAEW21, SMALL])
def test_its_configuration_is_read_from_its_shapes(config: TinyVAEConfig):
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in TinyStreamVAE(config).state_dict().items()}
    found = tiny_vae(shapes)
    assert found is not None and (found.config, found.naming) == (config, "taehv")


def test_the_first_latent_is_one_frame_and_each_later_one_four(vae: TinyStreamVAE):
    state = vae.new_decoder_state()
    latents = torch.randn(1, 4, 3, 2, 3)
    frames = [vae.decode_chunk(latent, state).shape[2] for latent in latents.split(1, dim=2)]
    assert frames == [1, 4, 4]
    assert vae.decode(latents).shape == (1, 3, 9, 16, 24)
    assert vae.encode(torch.rand(1, 3, 9, 16, 24)).shape == (1, 4, 3, 2, 3)


def literal_decoder(weights: dict[str, Tensor], latents: Tensor) -> Tensor:
    """The published decoder, layer number by layer number, on frames [F, C, h, w] in [0, 1], before any is dropped."""

    def conv(x: Tensor, name: str) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, weights.get(f"{name}.bias"), padding=kernel.shape[-1] // 2)

    x = F.relu(conv(3 * torch.tanh(latents / 3), "decoder.1"))
    for first, growth in ((3, 1), (9, 2), (15, 2)):
        for block in range(first, first + 3):
            before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
            y = F.relu(conv(torch.cat([x, before], dim=1), f"decoder.{block}.conv.0"))
            x = F.relu(x + conv(F.relu(conv(y, f"decoder.{block}.conv.2")), f"decoder.{block}.conv.4"))
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = conv(x, f"decoder.{first + 4}.conv")
        frames = [part for frame in x for part in frame.chunk(growth)]
        x = conv(torch.stack(frames), f"decoder.{first + 5}")
    return conv(F.relu(x), "decoder.22")


def test_it_decodes_as_the_published_layers_say(vae: TinyStreamVAE):
    latents = torch.randn(1, 4, 3, 2, 3, generator=torch.Generator().manual_seed(4))
    expected = literal_decoder(dict(vae.state_dict()), latents[0].transpose(0, 1))[3:].clamp(0, 1) * 2 - 1
    torch.testing.assert_close(vae.decode(latents)[0].transpose(0, 1), expected, rtol=1e-5, atol=1e-6)
    assert expected.abs().lt(1).any(), "not all clamped"


def test_blocks_remember_the_frame_before(vae: TinyStreamVAE):
    latents = torch.randn(1, 4, 2, 2, 3)
    other = latents.clone()
    other[:, :, 0] += 1
    assert not torch.equal(vae.decode(latents)[:, :, 1:], vae.decode(other)[:, :, 1:])
    later = latents.clone()
    later[:, :, 1] += 1
    assert torch.equal(vae.decode(latents)[:, :, :1], vae.decode(later)[:, :, :1])


def test_a_refused_chunk_leaves_the_state_as_it_was(vae: TinyStreamVAE):
    state = vae.new_decoder_state()
    vae.decode_chunk(torch.randn(1, 4, 1, 2, 3), state)
    before = state.to_bytes()
    with pytest.raises(InvalidInput, match=r"slot decoder\.3"):
        vae.decode_chunk(torch.randn(1, 4, 1, 2, 4), state)
    assert state.to_bytes() == before
