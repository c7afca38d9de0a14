"""A VGGT told from the names and shapes of its tensors."""

from __future__ import annotations

from teleworld.models.geometry.vggt.config import VGGT_1B, EncoderConfig, VGGTConfig
from teleworld.models.recognition import Recognised, Shapes
from teleworld.world.errors import InvalidInput

_KEY = "aggregator.global_blocks.0.attn.qkv.weight"


def vggt(shapes: Shapes) -> Recognised | None:
    """The VGGT that has these tensors, None if they are another network's. Taps and saliency blocks are the published ones."""
    norm = shapes.get("aggregator.global_blocks.0.attn.q_norm.weight")
    if _KEY not in shapes or norm is None:
        return None
    width, head = shapes[_KEY][1], norm[0]
    side = round((shapes["aggregator.patch_embed.pos_embed"][1] - 1) ** 0.5)
    patch = shapes["aggregator.patch_embed.patch_embed.proj.weight"][2]
    channels = [shapes[f"depth_head.projects.{level}.weight"][0] for level in range(4)]
    try:
        config = VGGTConfig(
            width=width,
            heads=width // head,
            depth=_count(shapes, "aggregator.global_blocks."),
            registers=shapes["aggregator.register_token"][2],
            patch=patch,
            trunk=_count(shapes, "camera_head.trunk."),
            features=shapes["depth_head.scratch.layer1_rn.weight"][0],
            channels=(channels[0], channels[1], channels[2], channels[3]),
            encoder=EncoderConfig(
                width=width,
                heads=width // head,
                depth=_count(shapes, "aggregator.patch_embed.blocks."),
                registers=shapes["aggregator.patch_embed.register_tokens"][1],
                image=side * patch,
            ),
        )
    except InvalidInput:  # too shallow for the published saliency blocks: its folder must say which are its own
        return None
    return Recognised("VGGT-1B" if config == VGGT_1B else f"VGGT-like, width {width}", "vggt", config)


def _count(shapes: Shapes, prefix: str) -> int:
    return len({name[len(prefix) :].split(".", 1)[0] for name in shapes if name.startswith(prefix)})
