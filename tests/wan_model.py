"""A model folder of the wan family, laid out like the public checkpoints, with tiny random networks.

Weights are under Wan's own names, without a word about themselves: a sharded transformer, Wan2.1's VAE, a umT5 with its
tokenizer. Only geometry and super-resolution, which are not part of the public releases, carry their configuration.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from teleworld.generation.model import save_network
from teleworld.models.checkpoint import save_safetensors
from teleworld.models.dit import DiT, DiTConfig
from teleworld.models.geometry import GeometryConfig, GeometryNetwork
from teleworld.models.stream_vae import WAN21_VAE, WanStreamVAE, WanVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig

WIDTH, HEIGHT, TEXT_DIM = 64, 48, 32
# 128 is the width of one head in every published Wan transformer: the shapes alone tell the configuration.
DIT = DiTConfig(dim=128, ffn=96, heads=1, layers=2, text_dim=TEXT_DIM)
VAE = replace(WAN21_VAE, base_channels=8)
WORLD = {
    "fps": 16.0,
    "latents": 6,
    "lens": {"width": WIDTH, "height": HEIGHT, "fx": 55.0, "fy": 55.0},
    "upscale": 2,
    "latent_channels": 16,
}


def write_wan_model(
    folder: Path,
    *,
    dit: DiTConfig = DIT,
    vae: WanVAEConfig = VAE,
    world: dict[str, Any] = WORLD,
    sampling: dict[str, Any] | str | None = None,
    seed: int = 0,
) -> Path:
    """Write `folder` and return it."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = DiT(dit)
        write_sharded(folder, network.state_dict())
        save_safetensors(folder / "Wan2.1_VAE.safetensors", WanStreamVAE(vae).state_dict())
        write_text_encoder(folder / "text", dit.text_dim)
        geometry = GeometryConfig(
            stem_channels=(4, 4, 8), width=16, heads=1, head_channels=(8, 8, 8, 8), saliency_width=4
        )
        measure = GeometryNetwork(geometry)
        measure.depth_head.answer.bias.data[2] = 3.0  # sure of itself, so that the memory fills
        save_network(folder, "geometry", measure)
        upscaler = SuperResolutionConfig(channels=8, blocks=(1, 1), head_channels=4, token_channels=8, heads=1)
        save_network(folder, "super_resolution", SuperResolution(upscaler))
    description = {
        "world": world,
        "networks": {
            "dit": {"file": "diffusion_pytorch_model.safetensors.index.json"},
            "vae": {"file": "Wan2.1_VAE.safetensors"},
        },
        "sampling": sampling or {"steps": 2, "shift": 5.0},
        "text": {"encoder": "umt5", "folder": "text"},
    }
    (folder / "model.json").write_text(json.dumps(description))
    return folder


def write_sharded(folder: Path, weights: dict[str, Tensor]) -> None:
    """Two shards and their index, under the names that diffusers' pipelines publish."""
    names, shards = sorted(weights), {}
    for number in range(2):
        shard = f"diffusion_pytorch_model-{number + 1:05}-of-00002.safetensors"
        part = names[number::2]
        save_safetensors(folder / shard, {name: weights[name] for name in part})
        shards |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def write_text_encoder(folder: Path, width: int) -> None:
    """A umT5 of one layer, and a tokenizer of a few words that ends each prompt as the public one does."""
    words = ["<pad>", "</s>", "<unk>", "a", "hall", "stone", "red", "door"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    wrapped.save_pretrained(folder / "tokenizer")
    config = UMT5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2, is_encoder_decoder=False
    )
    UMT5EncoderModel(config).save_pretrained(folder / "text_encoder", safe_serialization=True)
