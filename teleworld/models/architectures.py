"""Every architecture that a model folder may name, and how its checkpoints are recognised.

What differs between model families is here, as data: which class serves a network, what configures it, and how public
weight names become the module's own. `teleworld checkpoint inspect` asks each architecture in turn whether a file is its.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleworld.models import recognition
from teleworld.models.dit import DiT, DiTConfig
from teleworld.models.geometry import GeometryConfig, GeometryNetwork
from teleworld.models.geometry.depth_anything import DepthAnythingConfig, DepthAnythingGeometry, published_names
from teleworld.models.geometry.vggt.backend import VGGTGeometry
from teleworld.models.geometry.vggt.config import VGGTConfig
from teleworld.models.geometry.vggt.model import used_tensors
from teleworld.models.geometry.vggt.recognise import vggt
from teleworld.models.naming import to_wan
from teleworld.models.recognition import Recognised, Shapes
from teleworld.models.stream_vae import WanStreamVAE, WanVAEConfig
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.stream_vae.tiny import TinyStreamVAE, TinyVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig
from teleworld.models.super_resolution.flashvsr import FlashVSR, FlashVSRConfig
from teleworld.models.super_resolution.flashvsr.checkpoint import flash_vsr
from teleworld.world.errors import CheckpointError


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(tensors)


def _unknown(shapes: Shapes) -> Recognised | None:
    return None


@dataclass(frozen=True)
class Architecture:
    """How one kind of network is built and filled.

    network: which part of a model it can be. module, config: the class and the dataclass that configures it. rename: public
    weight names to the module's own. recognise: the configuration that tensor shapes imply, None if they are another's.
    heavy: a transformer worth 8-bit weights and compiled blocks. virtual: may be built on the `meta` device and take the
    file's tensors as its own, because all that it holds is in its state dict. memory_format: of its convolutions.
    """

    network: str
    module: type[nn.Module]
    config: type[Any]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _own
    recognise: Callable[[Shapes], Recognised | None] = _unknown
    heavy: bool = False
    virtual: bool = False
    memory_format: torch.memory_format = torch.preserve_format


ARCHITECTURES: dict[str, Architecture] = {
    # Before the transformer that it contains.
    "flash_vsr": Architecture("super_resolution", FlashVSR, FlashVSRConfig, recognise=flash_vsr, virtual=True),
    "wan_dit": Architecture("dit", DiT, DiTConfig, to_wan, recognition.wan_dit, heavy=True, virtual=True),
    "wan_vae": Architecture("vae", WanStreamVAE, WanVAEConfig, to_wan, recognition.wan_vae, virtual=True),
    "tiny_vae": Architecture("vae", TinyStreamVAE, TinyVAEConfig, recognise=recognition.tiny_vae, virtual=True),
    "patch_vae": Architecture("vae", PatchVAE, PatchVAEConfig, memory_format=torch.channels_last),
    "geometry": Architecture("geometry", GeometryNetwork, GeometryConfig),
    "vggt": Architecture("geometry", VGGTGeometry, VGGTConfig, used_tensors, vggt, virtual=True),
    "depth_anything_3": Architecture("geometry", DepthAnythingGeometry, DepthAnythingConfig, published_names),
    "super_resolution": Architecture("super_resolution", SuperResolution, SuperResolutionConfig),
}

# What a checkpoint is that says nothing about itself: the nano family's.
USUAL = {"dit": "wan_dit", "vae": "patch_vae", "geometry": "geometry", "super_resolution": "super_resolution"}


def architecture_of(name: str, network: str) -> Architecture:
    """The architecture `name`, which must be able to be `network`. Raises CheckpointError."""
    found = ARCHITECTURES.get(name)
    if found is None or found.network != network:
        fitting = ", ".join(key for key, value in ARCHITECTURES.items() if value.network == network)
        raise CheckpointError("architecture", f"{name!r} is no {network}; known: {fitting}")
    return found


def recognise(shapes: Shapes) -> tuple[str, Recognised] | None:
    """The first architecture to which tensors of these names and shapes belong, and their configuration."""
    for name, architecture in ARCHITECTURES.items():
        if (found := architecture.recognise(shapes)) is not None:
            return name, found
    return None
