"""FlashVSR's published files and this network's one file.

Published are four: the transformer in Wan's own naming, `LQ_proj_in`, `TCDecoder`, and the embedding of the one prompt it
was trained with. They become one state dict whose names are the published ones behind the names that the public
pipeline gives the parts.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from teleworld.models.dit.config import DiTConfig
from teleworld.models.recognition import Recognised, Shapes
from teleworld.models.super_resolution.flashvsr.config import FLASH_VSR, FlashVSRConfig
from teleworld.world.errors import CheckpointError

_HEAD_DIM = 128


def merged(
    transformer: Mapping[str, Tensor], projection: Mapping[str, Tensor], decoder: Mapping[str, Tensor], prompt: Tensor
) -> dict[str, Tensor]:
    """One state dict of the four published parts. prompt: [T, text_dim] or [1, T, text_dim]."""
    if prompt.dim() not in (2, 3) or (prompt.dim() == 3 and len(prompt) != 1):
        raise CheckpointError("prompt", f"expected [T, text_dim], got {list(prompt.shape)}")
    return {
        **transformer,
        **{f"LQ_proj_in.{name}": tensor for name, tensor in projection.items()},
        **{f"TCDecoder.{name}": tensor for name, tensor in decoder.items()},
        "prompt": prompt.reshape(1, *prompt.shape[-2:]),
    }


def flash_vsr(shapes: Shapes) -> Recognised | None:
    """The FlashVSR that has these tensors, None if they are another network's."""
    if "LQ_proj_in.conv1.weight" not in shapes or "TCDecoder.decoder.1.weight" not in shapes:
        return None
    try:
        dim, channels, *patch = shapes["patch_embedding.weight"]
        widths = [shapes[f"TCDecoder.decoder.{layer}.weight"][0] for layer in (1, 10, 16, 22)]
        config = FlashVSRConfig(
            dit=DiTConfig(
                dim=dim,
                ffn=shapes["blocks.0.ffn.0.weight"][0],
                heads=max(dim // _HEAD_DIM, 1),
                layers=len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
                channels=channels,
                patch=(patch[0], patch[1], patch[2]),
                text_dim=shapes["text_embedding.0.weight"][1],
                frequency_dim=shapes["time_embedding.0.weight"][1],
            ),
            projection=(shapes["LQ_proj_in.conv1.weight"][0], shapes["LQ_proj_in.conv2.weight"][0]),
            decoder=(widths[0], widths[1], widths[2], widths[3]),
            prompt_tokens=shapes["prompt"][1],
        )
    except KeyError:
        return None
    title = "FlashVSR" if config == FLASH_VSR else f"FlashVSR-like, dim {dim}"
    doubt = "" if dim % _HEAD_DIM == 0 else "dit.heads: the width does not divide into heads of 128"
    return Recognised(title, "flashvsr", config, doubt)
