"""A checkpoint file to a network that computes: ours, Wan2.1's own, diffusers', Self-Forcing's and MMPL's.

Public files hold the same tensors under different names and wrappers and say nothing about themselves; ours carry their
architecture and configuration as metadata. What the caller says counts first, then the metadata, then what names and shapes
tell. Where that is not certain, or a single tensor does not fit, the load fails and says why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from teleworld.models.architectures import USUAL, architecture_of, recognise
from teleworld.models.checkpoint import load_into, load_safetensors, strip_prefixes
from teleworld.models.placement import Placement
from teleworld.world.errors import CheckpointError


def load_network(
    network: str,
    file: Path,
    *,
    architecture: str = "",
    config: Mapping[str, Any] | None = None,
    branch: str | None = None,
    placement: Placement = Placement(),  # noqa: B008 - frozen
) -> nn.Module:
    """The network `network` ("dit", "vae", ...) from `file`, placed, in evaluation mode, without gradients.

    architecture, config: what it is, where the file does not tell or tells wrong. branch: which network of a file that holds
    several ("generator_ema", "generator", "critic"). A large one is never held twice: it takes the file's own tensors.
    Raises CheckpointError unless every tensor of the file has its place.
    """
    tensors, metadata = load_safetensors(file)
    described = "config" in metadata
    if branch is not None or not described:
        tensors = strip_prefixes(tensors, branch=branch)
    name, guessed = architecture or metadata.get("architecture", ""), None
    if not described:
        found = recognise({tensor: tuple(value.shape) for tensor, value in tensors.items()})
        if found is not None and name in ("", found[0]):
            name, guessed = found[0], found[1].config
            if found[1].doubt and config is None:
                raise CheckpointError(
                    f"{network}.config", f"{file.name} does not tell {found[1].doubt}: say it in model.json"
                )
    kind = architecture_of(name or USUAL[network], network)
    if config is not None:
        chosen = parse(f"{network}.config", kind.config, json.dumps(dict(config)))
    elif described:
        chosen = parse(f"{network}.config", kind.config, metadata["config"])
    else:
        chosen = guessed if guessed is not None else kind.config()
    with torch.device("meta" if kind.virtual else "cpu"):
        built = kind.module(chosen)
    if kind.virtual:
        built = built.to(placement.dtype)
    load_into(built, kind.rename(tensors), strict=True, source=file.name)
    if kind.memory_format is not torch.preserve_format:
        built = built.to(memory_format=kind.memory_format)  # type: ignore[call-overload]
    return placement.network(built.eval().requires_grad_(False), heavy=kind.heavy)


def parse(field: str, kind: type[Any], text: str) -> Any:
    """A dataclass from JSON. Raises CheckpointError that names the part of `field` that is wrong."""
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        raise CheckpointError(".".join(map(str, (field, *fault["loc"]))), fault["msg"]) from error
