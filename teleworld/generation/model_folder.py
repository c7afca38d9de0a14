"""A model folder: which file holds which network, what it is, and the digest that pins a world to it.

A folder that holds `dit`, `geometry`, `super_resolution` and `vae` as `.safetensors`, each with its configuration in its
metadata, needs nothing else. Public checkpoints say nothing about themselves, so a folder of those has a `model.json`:

    {
      "world": {"fps": 16, "latents": 10, "lens": {...}, "upscale": 2, "latent_channels": 16},
      "networks": {"dit": {"file": "diffusion_pytorch_model.safetensors.index.json"}, "vae": {"file": "Wan2.1_VAE.safetensors"}},
      "sampling": {"method": "unipc", "steps": 50, "shift": 5.0, "guidance_scale": 5.0, "negative_prompt": "..."},
      "text": {"encoder": "umt5", "folder": "text"}
    }

Every part is optional; `sampling` may also be the name of a preset. What is left out comes from the file's metadata, then from
the shapes of its tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from teleworld.generation.sampler import PRESETS, Sampling
from teleworld.models.checkpoint import resolve_checkpoint, shards_of
from teleworld.world.errors import CheckpointError
from teleworld.world.spec import WorldSpec, learn, spec_of

NETWORKS = ("dit", "geometry", "super_resolution", "vae")
DESCRIPTION = "model.json"
NEGATIVE_PROMPT = "negative_prompt.safetensors"


@dataclass(frozen=True)
class NetworkEntry:
    """One network of a `model.json`.

    file: relative to the folder; a `.safetensors` file or a sharded one's index. architecture: a name of
    `models.architectures`. config: of that architecture. branch: which network of a training checkpoint, for example
    generator_ema.
    """

    file: str = ""
    architecture: str = ""
    config: Mapping[str, Any] | None = None
    branch: str | None = None


@dataclass(frozen=True)
class TextEntry:
    """encoder: minilm (carried by a package) or umt5 (Wan's). folder: of umt5's files, relative to the model folder."""

    encoder: str = "minilm"
    folder: str = "text"


@dataclass(frozen=True)
class Description:
    """What a `model.json` says."""

    world: WorldSpec | None = None
    networks: Mapping[str, NetworkEntry] = field(default_factory=dict)
    sampling: Sampling | None = None
    text: TextEntry = TextEntry()


@dataclass(frozen=True)
class ModelFolder:
    """The files of one model. `name` is the folder's."""

    path: Path

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.path.name

    @cached_property
    def description(self) -> Description:
        """The `model.json`, or what holds without one. Raises CheckpointError if it is damaged."""
        file = self.path / DESCRIPTION
        if not file.is_file():
            return Description()
        try:
            content = json.loads(file.read_text())
            if isinstance(content.get("world"), dict):
                content["world"] = {**content["world"], "name": self.name}
            if isinstance(preset := content.get("sampling"), str):
                content["sampling"] = PRESETS.get(preset, preset)
            found = TypeAdapter(Description).validate_python(content)
        except ValidationError as error:
            fault = error.errors()[0]
            raise CheckpointError(f"{DESCRIPTION}: {'.'.join(map(str, fault['loc']))}", fault["msg"]) from error
        except (ValueError, AttributeError) as error:
            raise CheckpointError(DESCRIPTION, f"expected a JSON object: {error}") from error
        if unknown := sorted(set(found.networks) - set(NETWORKS)):
            raise CheckpointError(f"{DESCRIPTION}: networks", f"{unknown[0]!r} is none of {', '.join(NETWORKS)}")
        return found

    @property
    def spec(self) -> WorldSpec:
        """The world that the folder describes, or the built-in one of its name. Raises InvalidInput if there is none."""
        if self.description.world is not None:
            return learn(self.description.world)
        return spec_of(self.name)

    def entry(self, network: str) -> NetworkEntry:
        """What is said about a network."""
        return self.description.networks.get(network, NetworkEntry())

    def file(self, network: str) -> Path:
        """Where the weights of `network` are. Raises CheckpointError if they are not there."""
        return resolve_checkpoint(self.path, self.entry(network).file or f"{network}.safetensors")

    @property
    def negative_prompt(self) -> Path | None:
        """The embedding of the negative prompt, if it was made ahead of time."""
        file = self.path / NEGATIVE_PROMPT
        return resolve_checkpoint(self.path, NEGATIVE_PROMPT) if file.is_file() else None

    @cached_property
    def digest(self) -> str:
        """sha256 over the names and contents of all files that results depend on, as 64 hex digits."""
        digest = hashlib.sha256()
        for name, file in self._pinned():
            with open(file, "rb") as stream:
                digest.update(f"{name}:{hashlib.file_digest(stream, 'sha256').hexdigest()};".encode())
        return digest.hexdigest()

    def _pinned(self) -> Iterator[tuple[str, Path]]:
        for network in NETWORKS:
            file = self.file(network)
            yield network, file
            for shard in shards_of(file):
                yield f"{network}/{shard.name}", shard
        if self.negative_prompt is not None:
            yield "negative_prompt", self.negative_prompt
        if (self.path / DESCRIPTION).is_file():
            yield DESCRIPTION, self.path / DESCRIPTION
