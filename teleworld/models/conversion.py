"""Public checkpoints, whatever they are wrapped in: looking inside, and turning them into safetensors once and for all.

This is the only place that opens a pickle, and PyTorch's own restricted reader does it (`weights_only`): it builds tensors and
plain containers and refuses everything else, so that a file cannot run code. What comes out has the bare names of the
network, is checked against the network that it will fill, tensor by tensor, and says in its metadata what it is.
"""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from teleworld.models.architectures import ARCHITECTURES, Architecture, recognise
from teleworld.models.checkpoint import (
    branches_of,
    check_fit,
    load_metadata,
    load_safetensors,
    save_safetensors,
    shards_of,
    strip_prefixes,
)
from teleworld.models.naming import Naming, convert
from teleworld.models.recognition import Recognised
from teleworld.models.tensorfile import NotATensorFile, read_entries
from teleworld.world.errors import CheckpointError

PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
DTYPES = {"keep": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# A trainer's dictionary that holds the network under one of these names says nothing about it by doing so.
_CONTAINERS = ("state_dict", "model_state_dict", "module", "params")


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds. tensors: shape and dtype name of each. nbytes: of all. others: entries that are no tensors."""

    tensors: Mapping[str, tuple[tuple[int, ...], str]]
    nbytes: int
    metadata: Mapping[str, str]
    others: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(_count(shape) for shape, _ in self.tensors.values())

    @property
    def dtypes(self) -> str:
        """Dtypes and how many tensors have each."""
        return ", ".join(
            f"{name} x {count}" for name, count in Counter(d for _, d in self.tensors.values()).most_common()
        )


@dataclass(frozen=True)
class Identity:
    """One network of a checkpoint. branch: its name where the file holds several. architecture, found: None if unknown."""

    branch: str | None
    architecture: str | None
    found: Recognised | None
    parameters: int


def look(path: Path) -> Content:
    """What is in a checkpoint, without its values. Raises CheckpointError."""
    if path.suffix.lower() in PICKLES:
        tensors, others = _unpickle(path, "meta")
        shapes = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
        return Content(shapes, sum(t.numel() * t.element_size() for t in tensors.values()), {}, others)
    metadata, nbytes = load_metadata(path), 0
    listed: dict[str, tuple[tuple[int, ...], str]] = {}
    for file in shards_of(path) or (path,):
        with open(file, "rb") as stream:
            try:
                entries, _ = read_entries(stream)
            except NotATensorFile as error:
                raise CheckpointError(str(file), str(error)) from error
        listed |= {name: (entry.shape, entry.dtype) for name, entry in entries.items()}
        nbytes += sum(entry.nbytes for entry in entries.values())
    return Content(listed, nbytes, metadata)


def identify(content: Content) -> list[Identity]:
    """What each network of a checkpoint is."""
    shapes = {name: torch.empty(shape, device="meta") for name, (shape, _) in content.tensors.items()}
    identities = []
    branches = branches_of(shapes)
    for branch in branches if len(branches) > 1 else (None,):
        bare = {name: tuple(t.shape) for name, t in strip_prefixes(shapes, branch=branch).items()}
        parameters = sum(_count(shape) for shape in bare.values())
        name, found = recognise(bare) or (None, None)
        if (said := content.metadata.get("architecture")) in ARCHITECTURES and "config" in content.metadata:
            config = TypeAdapter(ARCHITECTURES[said].config).validate_json(content.metadata["config"])
            known = found if found is not None and said == name else Recognised(said, "own", config)
            name, found = said, replace(known, config=config, doubt="")
        identities.append(Identity(branch, name, found, parameters))
    return identities


def convert_checkpoint(
    source: Path,
    target: Path,
    *,
    branch: str | None = None,
    naming: Naming | None = None,
    dtype: str = "keep",
    metadata: Mapping[str, str] | None = None,
) -> Identity:
    """Write the network of `source` to the safetensors file `target`; returns what it is.

    naming: wan or diffusers; None keeps the names that it has. dtype: a key of `DTYPES`. metadata: more to write down.
    Raises CheckpointError if the file is not clearly one network of a known architecture, or a tensor of that is missing,
    left over, or of another shape.
    """
    if source.suffix.lower() in PICKLES:
        tensors, _ = _unpickle(source, "cpu")
    else:
        tensors, _ = load_safetensors(source)
    bare = strip_prefixes(tensors, branch=branch)
    found = recognise({name: tuple(tensor.shape) for name, tensor in bare.items()})
    if found is None:
        raise CheckpointError(
            str(source), "its tensors are those of no known network; see `teleworld checkpoint inspect`"
        )
    name, known = found
    if known.doubt:
        raise CheckpointError(
            str(source), f"its shapes do not tell {known.doubt}; serve it with a config in model.json"
        )
    architecture = ARCHITECTURES[name]
    check_fit(_skeleton(architecture, known.config), architecture.rename(bare), source=str(source))
    written = bare if naming is None else convert(bare, naming)
    if (wanted := DTYPES[dtype]) is not None:
        written = {key: t.to(wanted) if t.is_floating_point() else t for key, t in written.items()}
    described = {"architecture": name, "config": _json(known.config), **(metadata or {})}
    save_safetensors(target, {key: tensor.contiguous() for key, tensor in written.items()}, described)
    return Identity(branch, name, known, sum(t.numel() for t in written.values()))


def _skeleton(architecture: Architecture, config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return architecture.module(config)


def _unpickle(path: Path, device: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors by their full names, and the names of everything else."""
    try:
        with open(path, "rb") as stream:
            zipped = stream.read(4) == b"PK\x03\x04"
        # A mapped file is read tensor by tensor: 28 GB of weights need not fit twice.
        content = torch.load(path, map_location=device, weights_only=True, mmap=zipped and device == "cpu")
    except OSError as error:
        raise CheckpointError(str(path), error.strerror or str(error)) from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(str(path), f"holds more than tensors, or is damaged: {reason}") from error
    while isinstance(content, Mapping) and (inner := next((key for key in _CONTAINERS if key in content), None)):
        if not isinstance(content[inner], Mapping):
            break
        content = content[inner]
    tensors: dict[str, Tensor] = {}
    others: list[str] = []
    _flatten(content, "", tensors, others)
    if not tensors:
        raise CheckpointError(str(path), "holds no tensors")
    return tensors, tuple(others)


def _flatten(content: Any, prefix: str, tensors: dict[str, Tensor], others: list[str]) -> None:
    if isinstance(content, Tensor):
        tensors[prefix] = content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            _flatten(value, f"{prefix}.{key}" if prefix else str(key), tensors, others)
    else:
        others.append(prefix or type(content).__name__)


def _json(config: Any) -> str:
    return json.dumps(TypeAdapter(type(config)).dump_python(config, mode="json"), sort_keys=True)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def default_target(source: Path) -> Path:
    """Where a conversion goes by default: beside the source, as safetensors."""
    name = source.name.removesuffix(".safetensors.index.json")
    return source.with_name(f"{os.path.splitext(name)[0] if name == source.name else name}.safetensors")
