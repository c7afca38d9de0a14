"""VGGT's picture encoder beside transformers' DINOv2 with registers, at the size of its position table and at another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from teleworld.evaluation.parity.table import Check, Row, compare, shake
from teleworld.models.geometry.vggt import EncoderConfig, SaliencyLayers, VGGTConfig
from teleworld.models.geometry.vggt.aggregator import DinoEncoder

CONFIG = VGGTConfig(
    width=32,
    heads=2,
    depth=1,
    taps=(0, 0, 0, 0),
    encoder=EncoderConfig(width=32, heads=2, depth=3, registers=4, image=56),
    saliency=SaliencyLayers((0,), (0,), (0,), (0,)),
    suppressed=(0,),
)
SIZES = ((56, 56), (28, 70), (84, 42))
# Ours and the public library's names of a block's layers that differ in name alone.
_LAYERS = (
    ("norm1", "norm1"),
    ("norm2", "norm2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
    ("attn.proj", "attention.o_proj"),
)


def public_twin(encoder: DinoEncoder) -> Any:
    """The public library's network with the same weights."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    settings = CONFIG.encoder
    twin: Any = Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=settings.width,
            num_hidden_layers=settings.depth,
            num_attention_heads=settings.heads,
            num_register_tokens=settings.registers,
            mlp_ratio=CONFIG.mlp_ratio,
            image_size=settings.image,
            patch_size=CONFIG.patch,
        )
    )
    twin.load_state_dict(_public_names(encoder.state_dict(), settings.depth))
    return twin.eval()


def _public_names(own: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    names = {
        "embeddings.cls_token": own["cls_token"],
        "embeddings.mask_token": own["mask_token"],
        "embeddings.register_tokens": own["register_tokens"],
        "embeddings.position_embeddings": own["pos_embed"],
    }
    for kind in ("weight", "bias"):
        names[f"embeddings.patch_embeddings.projection.{kind}"] = own[f"patch_embed.proj.{kind}"]
        names[f"layernorm.{kind}"] = own[f"norm.{kind}"]
    for number in range(depth):
        block, layer = f"blocks.{number}", f"encoder.layer.{number}"
        for kind in ("weight", "bias"):
            for ours, theirs in _LAYERS:
                names[f"{layer}.{theirs}.{kind}"] = own[f"{block}.{ours}.{kind}"]
            parts = own[f"{block}.attn.qkv.{kind}"].chunk(3)
            for part, value in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                names[f"{layer}.attention.{part}.{kind}"] = value
        for scale in ("1", "2"):
            names[f"{layer}.layer_scale{scale}.lambda1"] = own[f"{block}.ls{scale}.gamma"]
    return names


def _rows() -> Iterator[Row]:
    torch.manual_seed(0)
    encoder = DinoEncoder(CONFIG).eval()
    shake(encoder, 1, 0.1)
    twin = public_twin(encoder)
    for size in SIZES:
        pictures = torch.randn(2, 3, *size)
        theirs = twin(pictures).last_hidden_state[:, 1 + CONFIG.encoder.registers :]
        note = "" if size == (CONFIG.encoder.image,) * 2 else "position table resized"
        yield compare(
            "VGGT encoder",
            f"{size[0]} x {size[1]}",
            "transformers Dinov2WithRegisters",
            encoder(pictures),
            theirs,
            note=note,
        )


CHECKS = (Check("VGGT encoder", _rows),)
