"""Weight names: Wan2.1's own, which the modules here use, and diffusers', in which many checkpoints are published.

Only names differ between the two; every tensor keeps its shape and values. One trap is worth a word: diffusers numbers
the norms of a transformer block in order of use, Wan by kind, so that Wan's `norm3` (before cross-attention, the only
one with weights) is diffusers' `norm2`. Another: Wan2.1's VAE counts all layers of a coder in one row, Wan2.2's by level.
A name that belongs to neither is an error, never passed through.

The sampler's and the trainer's wrappers must be off already: see `checkpoint.strip_prefixes`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from torch import Tensor

from teleworld.world.errors import CheckpointError

Naming = Literal["wan", "diffusers"]
Family = Literal["dit", "vae"]

# Pairs (Wan, diffusers) of module paths; a tensor is "<path>" or "<path>.<leaf>".
_DIT_TOP = (
    ("patch_embedding", "patch_embedding"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
    ("head.head", "proj_out"),
    ("head.modulation", "scale_shift_table"),
)
_ATTENTION = (
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("o", "to_out.0"),
    ("norm_q", "norm_q"),
    ("norm_k", "norm_k"),
)
_IMAGE_ATTENTION = (("k_img", "add_k_proj"), ("v_img", "add_v_proj"), ("norm_k_img", "norm_added_k"))
_DIT_BLOCK = (
    *((f"self_attn.{wan}", f"attn1.{diffusers}") for wan, diffusers in _ATTENTION),
    *((f"cross_attn.{wan}", f"attn2.{diffusers}") for wan, diffusers in (*_ATTENTION, *_IMAGE_ATTENTION)),
    ("norm3", "norm2"),
    ("ffn.0", "ffn.net.0.proj"),
    ("ffn.2", "ffn.net.2"),
    ("modulation", "scale_shift_table"),
)
_VAE_TOP = (("conv1", "quant_conv"), ("conv2", "post_quant_conv"))
_VAE_CODER = (
    ("conv1", "conv_in"),
    ("middle.1.norm", "mid_block.attentions.0.norm"),
    ("middle.1.to_qkv", "mid_block.attentions.0.to_qkv"),
    ("middle.1.proj", "mid_block.attentions.0.proj"),
    ("head.0", "norm_out"),
    ("head.2", "conv_out"),
)
_RESIDUAL = (
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
)
_RESAMPLE = (("resample.1", "resample.1"), ("time_conv", "time_conv"))

_WAN_ONLY = re.compile(r"head\.|time_embedding\.|conv[12]\.|(en|de)coder\.conv1\.")
_DIFFUSERS_ONLY = re.compile(r"condition_embedder\.|proj_out\.|(post_)?quant_conv\.")
_DIT_BLOCK_NAME = re.compile(r"(blocks\.\d+)\.")
_DOWN_NAME = re.compile(r"encoder\.(?:downsamples|down_blocks)\.(\d+)\.")
_WAN_UP_NAME = re.compile(r"decoder\.upsamples\.(\d+)\.(resample)?")
_DIFFUSERS_UP_NAME = re.compile(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.")
# Wan2.2: each level is a module of its own, with one sampler behind its residual blocks.
_WAN_LEVEL_NAME = re.compile(
    r"(en|de)coder\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(resample|time_conv)?"
)
_DIFFUSERS_LEVEL_NAME = re.compile(
    r"(en|de)coder\.(?:down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)\.|(?:down|up)sampler\.)"
)
_SIDES = {"en": ("encoder", "down"), "de": ("decoder", "up")}


def detect_family(names: Iterable[str]) -> Family:
    """Whether the names are a diffusion transformer's or a VAE's. Raises CheckpointError if they are neither's."""
    tops = {name.split(".", 1)[0] for name in names}
    if "patch_embedding" in tops and "blocks" in tops:
        return "dit"
    if tops & {"encoder", "decoder"} and tops & {"conv1", "conv2", "quant_conv", "post_quant_conv"}:
        return "vae"
    raise CheckpointError("checkpoint", f"neither a Wan2.1 transformer nor its VAE; it has {_some(tops)}")


def detect_naming(names: Iterable[str]) -> Naming:
    """Whose names these are. Raises CheckpointError if they are neither's, or some of each."""
    names = set(names)
    detect_family(names)
    wan = {name for name in names if _WAN_ONLY.match(name)}
    diffusers = {name for name in names if _DIFFUSERS_ONLY.match(name)}
    if bool(wan) == bool(diffusers):
        raise CheckpointError("checkpoint", f"its names are not clearly Wan's or diffusers': {_some(wan | diffusers)}")
    return "wan" if wan else "diffusers"


def name_map(names: Collection[str], target: Naming) -> dict[str, str]:
    """Each name -> its name in `target` (itself, if that is what it is). Raises CheckpointError for unknown names."""
    family = detect_family(names)
    source = detect_naming(names)
    if source == target:
        return {name: name for name in names}
    pairs = _dit_pairs(names) if family == "dit" else _vae_pairs(names)
    paths = {wan: diffusers for wan, diffusers in pairs}
    if source == "diffusers":
        paths = {diffusers: wan for wan, diffusers in pairs}
    mapped = {name: _translate(name, paths) for name in names}
    unknown = sorted(name for name, new in mapped.items() if new is None)
    if unknown:
        raise CheckpointError("checkpoint", f"unknown {source} names: {', '.join(unknown)}")
    return {name: new for name, new in mapped.items() if new is not None}


def convert(tensors: Mapping[str, Tensor], target: Naming) -> dict[str, Tensor]:
    """The same tensors under the names of `target`. Raises CheckpointError for unknown names."""
    return {new: tensors[name] for name, new in name_map(tensors.keys(), target).items()}


def to_wan(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under Wan's names, which the modules here have. Raises CheckpointError for unknown names."""
    return convert(tensors, "wan")


def _translate(name: str, paths: Mapping[str, str]) -> str | None:
    """`name` with the module path replaced; None if no path is known for it."""
    if name in paths:
        return paths[name]
    path, _, leaf = name.rpartition(".")
    return f"{paths[path]}.{leaf}" if path in paths else None


def _dit_pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    blocks = {match[1] for name in names if (match := _DIT_BLOCK_NAME.match(name))}
    pairs = list(_DIT_TOP)
    for block in blocks:
        pairs += _inside(block, block, _DIT_BLOCK)
    return pairs


def _vae_pairs(names: Collection[str]) -> list[tuple[str, str]]:
    pairs = list(_VAE_TOP)
    for coder in ("encoder", "decoder"):
        pairs += _inside(coder, coder, _VAE_CODER)
        pairs += _inside(f"{coder}.middle.0", f"{coder}.mid_block.resnets.0", _RESIDUAL)
        pairs += _inside(f"{coder}.middle.2", f"{coder}.mid_block.resnets.1", _RESIDUAL)
    if levels := _level_layers(names):
        return pairs + [pair for level in levels for pair in level]
    for index in {match[1] for name in names if (match := _DOWN_NAME.match(name))}:
        wan, diffusers = f"encoder.downsamples.{index}", f"encoder.down_blocks.{index}"
        pairs += _inside(wan, diffusers, (*_RESIDUAL, *_RESAMPLE))
    for index, (block, kind, number) in enumerate(_up_layers(names)):
        wan, diffusers = f"decoder.upsamples.{index}", f"decoder.up_blocks.{block}.{kind}.{number}"
        pairs += _inside(wan, diffusers, _RESIDUAL if kind == "resnets" else _RESAMPLE)
    return pairs


def _level_layers(names: Collection[str]) -> list[list[tuple[str, str]]]:
    """Pairs for each layer inside a level of Wan2.2's VAE; empty for Wan2.1's, which has no levels."""
    layers: dict[tuple[str, str, int], bool] = {}  # (side, level, layer) -> whether it is the level's sampler
    if wan := [match for name in names if (match := _WAN_LEVEL_NAME.match(name))]:
        for match in wan:
            key = match[1], match[2], int(match[3])
            layers[key] = layers.get(key, False) or match[4] is not None
    elif not any(".upsamplers." in name for name in names):
        found = [match for name in names if (match := _DIFFUSERS_LEVEL_NAME.match(name))]
        layers = {(match[1], match[2], int(match[3])): False for match in found if match[3]}
        blocks = {key: sum(1 for side, level, _ in layers if (side, level) == key) for key in {k[:2] for k in layers}}
        layers |= {(match[1], match[2], blocks[match[1], match[2]]): True for match in found if not match[3]}
    pairs = []
    for (side, level, number), sampler in layers.items():
        coder, way = _SIDES[side]
        wan_path = f"{coder}.{way}samples.{level}.{way}samples.{number}"
        theirs = f"{coder}.{way}_blocks.{level}." + (f"{way}sampler" if sampler else f"resnets.{number}")
        pairs.append(_inside(wan_path, theirs, _RESAMPLE if sampler else _RESIDUAL))
    return pairs


def _up_layers(names: Collection[str]) -> list[tuple[int, str, int]]:
    """The decoder's layers in order as diffusers counts them: (block, "resnets" or "upsamplers", number in it).

    Wan counts them in one row, in which each upsampling layer closes a block.
    """
    matches = [match for name in names if (match := _DIFFUSERS_UP_NAME.match(name))]
    if matches:
        # "resnets" sorts before "upsamplers", which is their order in a block.
        return sorted({(int(match[1]), match[2], int(match[3])) for match in matches})
    resamples: dict[int, bool] = {}
    for match in filter(None, map(_WAN_UP_NAME.match, names)):
        index = int(match[1])
        resamples[index] = resamples.get(index, False) or match[2] is not None
    layers: list[tuple[int, str, int]] = []
    block = number = 0
    for index in sorted(resamples):
        if resamples[index]:
            layers.append((block, "upsamplers", 0))
            block, number = block + 1, 0
        else:
            layers.append((block, "resnets", number))
            number += 1
    return layers


def _inside(wan: str, diffusers: str, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"{wan}.{a}", f"{diffusers}.{b}") for a, b in pairs]


def _some(names: Iterable[str]) -> str:
    """A few of `names`, for an error."""
    listed = sorted(names)
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "") if listed else "none"
