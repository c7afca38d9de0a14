"""A model: the networks of one family with their weights, each loaded when it is first used.

Which files those are, what each is and how it is sampled, a `ModelFolder` tells; which class serves it, the registry of
`models.architectures`. Nothing here knows a family by name. The digest over all files pins a world to its weights, so
every service of a mesh must see the same folder content.
"""

from __future__ import annotations

import hashlib
import json
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from torch import Tensor, nn

from teleworld.generation.model_folder import NETWORKS, ModelFolder
from teleworld.generation.sampler import Sampling
from teleworld.models.checkpoint import load_metadata, load_safetensors, save_safetensors
from teleworld.models.dit import DiT
from teleworld.models.geometry import GeometryNetwork
from teleworld.models.picture import PictureEncoder
from teleworld.models.placement import Placement, Precision
from teleworld.models.pretrained import load_network, parse
from teleworld.models.stream_vae import DecoderGuidance, StreamVAE
from teleworld.models.super_resolution import SuperResolution
from teleworld.models.text import PromptEncoder, open_text_encoder
from teleworld.world.errors import CheckpointError
from teleworld.world.spec import WorldSpec

if TYPE_CHECKING:
    from teleworld.generation.start_picture import StartPicture

__all__ = ["NETWORKS", "SHIPPED", "Model", "Sampling", "load_model", "save_network"]

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"


class Model:
    """The networks of `spec`, from `folder`, placed on a device."""

    def __init__(self, spec: WorldSpec, folder: Path, placement: Placement = Placement()) -> None:  # noqa: B008
        self.spec = spec
        self.placement = placement
        self.folder = ModelFolder(folder)
        self.start_pictures: list[tuple[Tensor, StartPicture]] = []

    def place(self, tensor: Tensor) -> Tensor:
        """A tensor where the networks compute, floats in their dtype."""
        return self.placement.tensor(tensor)

    def place_hint(self, hint: DecoderGuidance) -> DecoderGuidance:
        """`place` for a decoder's guidance."""
        return DecoderGuidance(self.place(hint.pixels), self.place(hint.mask))

    @cached_property
    def digest(self) -> str:
        """sha256 over the names and contents of all files, and the precision if it is reduced, as 64 hex digits."""
        if self.placement.precision is Precision.FLOAT32:
            return self.folder.digest
        return hashlib.sha256(f"{self.folder.digest}:{self.placement.precision.value}".encode()).hexdigest()

    @cached_property
    def dit(self) -> DiT:
        """The diffusion transformer."""
        return self._load("dit")

    @cached_property
    def sampling(self) -> Sampling:
        """How the diffusion transformer is sampled: what the folder says, else its checkpoint."""
        if self.folder.description.sampling is not None:
            return self.folder.description.sampling
        return parse("sampling", Sampling, load_metadata(self.file("dit")).get("sampling", "{}"))

    @cached_property
    def vae(self) -> StreamVAE:
        """The Stream-VAE."""
        vae: StreamVAE = self._load("vae")
        self._agree("vae", "latent_channels", vae.latent_channels, self.spec.latent_channels)
        self._agree("vae", "spatial_stride", vae.spatial_stride, self.spec.spatial_stride)
        return vae

    @cached_property
    def geometry(self) -> GeometryNetwork:
        """The geometry network; it measures, so it computes in float32 wherever the others do not."""
        return self._load("geometry", exact=True)

    @cached_property
    def super_resolution(self) -> SuperResolution:
        """The super-resolution network."""
        network: SuperResolution = self._load("super_resolution")
        self._agree("super_resolution", "scale", network.scale, self.spec.upscale)
        return network

    @cached_property
    def text(self) -> PromptEncoder:
        """The text encoder."""
        entry = self.folder.description.text
        return open_text_encoder(entry.encoder, self.folder.path / entry.folder, self.dit.config.text_length)

    @cached_property
    def picture_encoder(self) -> PictureEncoder:
        """The picture encoder of an image-to-video network, from `image_encoder` in the folder."""
        return PictureEncoder(self.folder.path / "image_encoder")

    @cached_property
    def negative_prompt(self) -> Tensor:
        """Token embeddings [T, D] of the negative prompt: the folder's file, or the text encoder's answer."""
        file = self.folder.negative_prompt
        if file is None:
            return self.text.embed(self.sampling.negative_prompt)
        tensors, _ = load_safetensors(file)
        if set(tensors) != {"embedding"}:
            raise CheckpointError(file.name, "expected one tensor called embedding")
        return tensors["embedding"]

    def sampled(self, sampling: Sampling) -> Model:
        """The same networks, sampled otherwise than their checkpoint says."""
        other = copy(self)
        other.__dict__["sampling"] = sampling
        return other

    def file(self, network: str) -> Path:
        """Where the weights of `network` are. Raises CheckpointError if they are not there."""
        return self.folder.file(network)

    def _load(self, network: str, *, exact: bool = False) -> Any:
        """A network of the folder. Raises CheckpointError unless every tensor of its file has its place."""
        entry = self.folder.entry(network)
        return load_network(
            network,
            self.file(network),
            architecture=entry.architecture,
            config=entry.config,
            branch=entry.branch,
            placement=Placement(self.placement.device) if exact else self.placement,
        )

    def _agree(self, network: str, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise CheckpointError(f"{network}.{what}", f"is {found}, the world {self.spec.name!r} needs {expected}")


def load_model(name: str, root: Path | None = None, placement: Placement = Placement()) -> Model:  # noqa: B008
    """The model `name` under `root` (the shipped checkpoints by default); raises InvalidInput or CheckpointError."""
    folder = ModelFolder((root or SHIPPED) / name)
    if not folder.path.is_dir():
        raise CheckpointError("checkpoints", f"{folder.path} is not a folder")
    return Model(folder.spec, folder.path, placement)


def save_network(folder: Path, network: str, module: nn.Module, **metadata: Any) -> None:
    """Write `network` of a model folder: weights in half precision, `module.config` and further metadata beside them.

    Metadata are dataclasses or text. The networks compute in float32 again when they are loaded.
    """
    described = {"config": _json(module.config)} | {
        name: value if isinstance(value, str) else _json(value) for name, value in metadata.items()
    }
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in module.state_dict().items()
    }
    save_safetensors(folder / f"{network}.safetensors", weights, described)


def _json(value: Any) -> str:
    return json.dumps(TypeAdapter(type(value)).dump_python(value, mode="json"), sort_keys=True)
