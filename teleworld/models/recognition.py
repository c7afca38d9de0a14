"""What a checkpoint is, read from the names and shapes of its tensors alone.

Public files say nothing about themselves. Their shapes say almost everything: what they cannot tell (how many heads a width
is split into, how a latent is normalised) is the same in every published file of the kind, and is taken from there.
Names must be bare: wrappers and branches stripped (`checkpoint.strip_prefixes`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from teleworld.models.dit.config import WAN_1_3B, WAN_14B, WAN_14B_I2V, WAN_18B, DiTConfig
from teleworld.models.naming import detect_naming, name_map
from teleworld.models.stream_vae.tiny import TAEW21, TinyVAEConfig
from teleworld.models.stream_vae.wan_config import WAN21_VAE, WAN22_VAE
from teleworld.world.errors import CheckpointError, InvalidInput

Shapes = Mapping[str, tuple[int, ...]]

_HEAD_DIM = 128  # of every published Wan transformer
_PUBLISHED_DITS = {
    "Wan2.1 T2V 1.3B": WAN_1_3B,
    "Wan2.1 T2V 14B": WAN_14B,
    "Wan2.1 I2V 14B": WAN_14B_I2V,
    "TeleWorld 18B": WAN_18B,
}
_PUBLISHED_VAES = {"Wan2.1 VAE": WAN21_VAE, "Wan2.2 VAE": WAN22_VAE}


@dataclass(frozen=True)
class Recognised:
    """title: what people call it. naming: whose weight names. config: of the module. doubt: what shapes cannot tell of it."""

    title: str
    naming: str
    config: Any
    doubt: str = ""


def wan_dit(shapes: Shapes) -> Recognised | None:
    """A Wan transformer, in Wan's or diffusers' naming."""
    found = _as_wan(shapes)
    if found is None or "patch_embedding.weight" not in found[0] or "head.head.weight" not in found[0]:
        return None
    own, naming = found
    dim, inputs, *patch = own["patch_embedding.weight"]
    channels = own["head.head.weight"][0] // (patch[0] * patch[1] * patch[2])
    guidance = own.get("guidance_embedding.weight")
    picture = own.get("img_emb.proj.1.weight")
    told = dim % _HEAD_DIM == 0
    config = DiTConfig(
        dim=dim,
        ffn=own["blocks.0.ffn.0.weight"][0],
        heads=dim // _HEAD_DIM if told else 1,
        layers=_count(own, r"blocks\.(\d+)\."),
        channels=channels,
        extra_channels=inputs - channels,
        guidance_channels=guidance[1] if guidance else 0,
        patch=(patch[0], patch[1], patch[2]),
        text_dim=own["text_embedding.0.weight"][1],
        frequency_dim=own["time_embedding.0.weight"][1],
        mixing="blocks.0.ffn.mixing.weight" in own,
        picture_dim=picture[1] if picture else 0,
    )
    title = next(
        (name for name, known in _PUBLISHED_DITS.items() if known == config), f"Wan-like transformer, dim {dim}"
    )
    return Recognised(title, naming, config, "" if told else f"into how many heads a width of {dim} is split")


def wan_vae(shapes: Shapes) -> Recognised | None:
    """Wan2.1's or Wan2.2's VAE, in either naming."""
    found = _as_wan(shapes)
    if found is None or "decoder.conv1.weight" not in found[0] or "encoder.conv1.weight" not in found[0]:
        return None
    own, naming = found
    nested = any(".downsamples.0.downsamples." in name for name in own)
    known = WAN22_VAE if nested else WAN21_VAE
    base, channels = own["encoder.conv1.weight"][0], own["decoder.conv1.weight"][1]
    # The decoder's last level is as wide as the first multiplier says.
    decoder = own["decoder.head.2.weight"][1] if nested else base
    config = known
    if (base, channels, decoder) != (known.base_channels, known.latent_channels, known.decoder_base_channels):
        same = channels == known.latent_channels
        config = replace(
            known,
            base_channels=base,
            decoder_channels=0 if decoder == base else decoder,
            latent_channels=channels,
            latent_mean=known.latent_mean if same else (0.0,) * channels,
            latent_std=known.latent_std if same else (1.0,) * channels,
        )
    title = next((name for name, value in _PUBLISHED_VAES.items() if value == config), "Wan-like VAE")
    doubt = "" if channels == known.latent_channels else f"how latents of {channels} channels are normalised"
    return Recognised(title, naming, config, doubt)


def tiny_vae(shapes: Shapes) -> Recognised | None:
    """A TAEHV-style tiny autoencoder: numbered layers, memory blocks."""
    if "decoder.1.weight" not in shapes or "decoder.3.conv.0.weight" not in shapes:
        return None
    widths = [shapes["decoder.1.weight"][0]]
    widths += [shape[0] for name, shape in sorted(_plain_convs(shapes), key=lambda pair: int(pair[0].split(".")[1]))]
    if len(widths) != 4:
        return None
    config = TinyVAEConfig(
        channels=shapes["decoder.1.weight"][1],
        widths=(widths[0], widths[1], widths[2], widths[3]),
        encoder_width=shapes.get("encoder.0.weight", (TAEW21.encoder_width,))[0],
    )
    title = "taew2_1 (tiny decoder of Wan2.1's latents)" if config == TAEW21 else "tiny autoencoder of the TAEHV form"
    return Recognised(title, "taehv", config)


def _plain_convs(shapes: Shapes) -> Iterable[tuple[str, tuple[int, ...]]]:
    """The decoder's convolutions between its levels: 3x3, without a bias."""
    for name, shape in shapes.items():
        if re.fullmatch(r"decoder\.\d+\.weight", name) and f"{name.removesuffix('weight')}bias" not in shapes:
            yield name, shape


def _as_wan(shapes: Shapes) -> tuple[dict[str, tuple[int, ...]], str] | None:
    """The shapes under Wan's names, and the naming they had; None if they are not a Wan network's."""
    try:
        naming = detect_naming(shapes)
        return {new: shapes[name] for name, new in name_map(shapes.keys(), "wan").items()}, naming
    except (CheckpointError, InvalidInput):
        return None


def _count(names: Iterable[str], pattern: str) -> int:
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)
