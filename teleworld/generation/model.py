"""A model: the networks of one family with their weights, each loaded when it is first used.

A model folder holds one safetensors file a network; each carries its own configuration in its metadata. The digest over
all files pins a world to its weights, so every service of a mesh must see the same folder content.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from torch import nn

from teleworld.generation.sampler import shifted_sigmas
from teleworld.models.checkpoint import load_into, load_safetensors, resolve_checkpoint, save_safetensors
from teleworld.models.dit import DiT, DiTConfig
from teleworld.models.geometry import GeometryConfig, GeometryNetwork
from teleworld.models.stream_vae import StreamVAE
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig
from teleworld.models.text import TextEncoder
from teleworld.world.errors import CheckpointError
from teleworld.world.spec import WorldSpec, spec_of

NETWORKS = ("dit", "geometry", "super_resolution", "vae")
SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Sampling:
    """How groups are sampled: number of steps, and the shift of the noise levels towards the noisy end."""

    steps: int = 4
    shift: float = 1.0

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels, from 1 down."""
        return shifted_sigmas(self.steps, self.shift)


class Model:
    """The networks of `spec`, from `folder`."""

    def __init__(self, spec: WorldSpec, folder: Path) -> None:
        self.spec = spec
        self._folder = folder

    @cached_property
    def digest(self) -> str:
        """sha256 over the names and contents of all network files, as 64 hex digits."""
        digest = hashlib.sha256()
        for network in NETWORKS:
            content = self._file(network).read_bytes()
            digest.update(f"{network}:{hashlib.sha256(content).hexdigest()};".encode())
        return digest.hexdigest()

    @cached_property
    def dit(self) -> DiT:
        """The diffusion transformer."""
        return self._load("dit", DiT, DiTConfig)

    @cached_property
    def sampling(self) -> Sampling:
        """How the diffusion transformer is sampled; part of its checkpoint."""
        metadata = load_safetensors(self._file("dit"))[1]
        return TypeAdapter(Sampling).validate_json(metadata.get("sampling", "{}"))

    @cached_property
    def vae(self) -> StreamVAE:
        """The Stream-VAE."""
        return self._load("vae", PatchVAE, PatchVAEConfig).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def geometry(self) -> GeometryNetwork:
        """The geometry network."""
        return self._load("geometry", GeometryNetwork, GeometryConfig)

    @cached_property
    def super_resolution(self) -> SuperResolution:
        """The super-resolution network."""
        return self._load("super_resolution", SuperResolution, SuperResolutionConfig)

    @cached_property
    def text(self) -> TextEncoder:
        """The text encoder."""
        return TextEncoder(self.dit.config.text_length)

    def _file(self, network: str) -> Path:
        return resolve_checkpoint(self._folder, f"{network}.safetensors")

    def _load(self, network: str, module: type[N], config: type[Any]) -> N:
        file = self._file(network)
        tensors, metadata = load_safetensors(file)
        built = module(TypeAdapter(config).validate_json(metadata["config"]) if "config" in metadata else config())
        load_into(built, tensors, strict=True, source=file.name)
        return built.eval().requires_grad_(False)


def load_model(name: str, root: Path | None = None) -> Model:
    """The model `name` under `root` (the shipped checkpoints by default); raises InvalidInput or CheckpointError."""
    spec = spec_of(name)
    folder = (root or SHIPPED) / name
    if not folder.is_dir():
        raise CheckpointError("checkpoints", f"{folder} is not a folder")
    return Model(spec, folder)


def save_network(folder: Path, network: str, module: nn.Module, **metadata: Any) -> None:
    """Write `network` of a model folder: weights in half precision, `module.config` and further metadata beside them.

    Metadata are dataclasses or text. The networks compute in float32 again when they are loaded.
    """
    described = {"config": _json(module.config)} | {
        name: value if isinstance(value, str) else _json(value) for name, value in metadata.items()
    }
    weights = {name: value.half() if value.is_floating_point() else value for name, value in module.state_dict().items()}
    save_safetensors(folder / f"{network}.safetensors", weights, described)


def _json(value: Any) -> str:
    return json.dumps(TypeAdapter(type(value)).dump_python(value, mode="json"), sort_keys=True)
