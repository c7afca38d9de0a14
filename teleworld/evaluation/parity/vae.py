"""The Stream-VAEs beside diffusers' AutoencoderKLWan, whole and streamed in several chunkings, with state saved on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from teleworld.evaluation.parity.table import Check, Row, compare, shake
from teleworld.models.naming import convert
from teleworld.models.stream_vae import StreamState, StreamVAE, WanStreamVAE, WanVAEConfig
from teleworld.models.stream_vae.tiny import TinyStreamVAE, TinyVAEConfig

ENCODE_CUTS = ((1, 4, 4, 4), (1, 8, 4), (1, 4, 8), (1, 12))
DECODE_CUTS = ((1, 1, 1, 1), (1, 2, 1), (2, 2), (1, 3), (3, 1), (4,))


def _config(**changes: object) -> WanVAEConfig:
    channels = 4
    base = {
        "base_channels": 8,
        "latent_channels": channels,
        "latent_mean": (0.1, -0.2, 0.3, 0.0),
        "latent_std": (1.0, 2.0, 0.5, 1.5),
    }
    return WanVAEConfig(**{**base, **changes})  # type: ignore[arg-type]


CONFIGS = {
    "Wan2.1, base 8": _config(),
    "Wan2.1, base 8, other levels": _config(
        multipliers=(1, 2, 2, 4), residual_blocks=1, temporal_down=(True, True, False)
    ),
    "Wan2.2, base 8 / 12": _config(decoder_channels=12, residual=True, patch=2),
    "Wan2.2, base 4 / 8, one block": _config(
        base_channels=4, decoder_channels=8, residual=True, patch=2, residual_blocks=1, multipliers=(1, 2, 4, 4)
    ),
}


def public_twin(vae: WanStreamVAE) -> Any:
    """The public library's network with the same weights."""
    from diffusers import AutoencoderKLWan

    config = vae.config
    twin: Any = AutoencoderKLWan(
        base_dim=config.base_channels,
        decoder_base_dim=config.decoder_base_channels,
        z_dim=config.latent_channels,
        dim_mult=list(config.multipliers),
        num_res_blocks=config.residual_blocks,
        temperal_downsample=list(config.temporal_down),
        latents_mean=list(config.latent_mean),
        latents_std=list(config.latent_std),
        is_residual=config.residual,
        in_channels=config.pixel_values,
        out_channels=config.pixel_values,
        patch_size=config.patch if config.patch > 1 else None,
        scale_factor_spatial=vae.spatial_stride,
    )
    twin.load_state_dict(convert(vae.state_dict(), "diffusers"))
    return twin.eval()


def small_vae(config: WanVAEConfig) -> WanStreamVAE:
    """A VAE with random weights."""
    torch.manual_seed(7)
    vae = WanStreamVAE(config).eval()
    shake(vae, 8)
    return vae


def small_video(vae: StreamVAE) -> Tensor:
    """[2, 3, 13, H, W] in [-1, 1]."""
    height, width = 2 * vae.spatial_stride, 3 * vae.spatial_stride
    return torch.rand(2, 3, 13, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def wan_vae() -> Iterator[Row]:
    """Encode and decode, whole and in every chunking, against the public library."""
    for name, config in CONFIGS.items():
        vae = small_vae(config)
        twin, pixels = public_twin(vae), small_video(vae)
        mean = torch.tensor(config.latent_mean).view(-1, 1, 1, 1)
        std = torch.tensor(config.latent_std).view(-1, 1, 1, 1)
        theirs = (twin.encode(pixels).latent_dist.mean - mean) / std
        latents = vae.encode(pixels)
        yield compare("Stream-VAE encode", name, "diffusers", latents, theirs, note="chunks 1 + 3 x 4")
        yield from _streamed("encode", name, vae, pixels, theirs, ENCODE_CUTS)
        theirs = twin.decode(latents * std + mean).sample
        yield compare("Stream-VAE decode", name, "diffusers", vae.decode(latents), theirs, note="chunks 4 x 1")
        yield from _streamed("decode", name, vae, latents, theirs, DECODE_CUTS)


def tiny_vae() -> Iterator[Row]:
    """A TAEHV-style autoencoder in parallel and latent by latent; there is no public library to stand beside."""
    torch.manual_seed(9)
    vae = TinyStreamVAE(TinyVAEConfig(channels=4, widths=(16, 12, 8, 8), encoder_width=8)).eval()
    pixels = small_video(vae)
    latents = vae.encode(pixels)
    state = vae.new_encoder_state()
    whole = torch.cat([vae.encode_chunk(pixels[:, :, :1], state), vae.encode_chunk(pixels[:, :, 1:], state)], dim=2)
    yield from _streamed("encode", "TAEHV form", vae, pixels, whole, ENCODE_CUTS, reference="parallel")
    whole = vae.decode_chunk(latents, vae.new_decoder_state())
    yield from _streamed("decode", "TAEHV form", vae, latents, whole, DECODE_CUTS, reference="parallel")


def _streamed(
    way: str,
    name: str,
    vae: StreamVAE,
    source: Tensor,
    expected: Tensor,
    cuts: Sequence[tuple[int, ...]],
    reference: str = "diffusers",
) -> Iterator[Row]:
    """In every chunking; the state goes through bytes after the second chunk."""
    step = vae.encode_chunk if way == "encode" else vae.decode_chunk
    for chunking in cuts:
        state = vae.new_encoder_state() if way == "encode" else vae.new_decoder_state()
        parts, size = [], 0
        for number, chunk in enumerate(source.split(chunking, dim=2)):
            if number == 2:
                saved = state.to_bytes()
                state, size = StreamState.from_bytes(saved), len(saved)
            parts.append(step(chunk, state))
        note = (
            "chunks "
            + "+".join(map(str, chunking))
            + (f", state of {size / 1024:.0f} KiB saved, restored" if size else "")
        )
        yield compare(f"Stream-VAE {way}", name, reference, torch.cat(parts, dim=2), expected, note=note)


CHECKS = (Check("Stream-VAE, Wan", wan_vae), Check("Stream-VAE, tiny", tiny_vae))
