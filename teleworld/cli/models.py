"""`teleworld models`: the configurations that there are, how large each network is, and what checkpoint ships with it."""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teleworld.cli.console import Screen
from teleworld.world.errors import CheckpointError
from teleworld.world.spec import SPECS


@dataclass(frozen=True)
class NetworkRow:
    """One network of a model. parameters: how many numbers it holds; digest, nbytes: of its checkpoint, if there is one."""

    model: str
    network: str
    parameters: int
    nbytes: int | None = None
    digest: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld models`."""
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights; default: the shipped ones")


def run(options: argparse.Namespace, screen: Screen) -> None:
    """Print the tables."""
    from teleworld.generation.model import SHIPPED

    root = options.checkpoint or SHIPPED
    worlds = [
        (
            spec.name,
            f"{spec.lens.width} x {spec.lens.height}, shown {spec.output_size[0]} x {spec.output_size[1]}",
            f"{spec.fps:g}",
            str(spec.latents),
            " x ".join(map(str, spec.latent_shape)),
        )
        for spec in SPECS.values()
    ]
    screen.table("worlds", worlds, ("model", "pixels", "frames/s", "latents a segment", "latent"))
    screen.say("")
    rows = [row for name in SPECS for row in shipped_networks(name, root)] + list(public_networks())
    table = [
        (
            row.model,
            row.network,
            f"{row.parameters / 1e6:,.1f} M",
            "-" if row.nbytes is None else f"{row.nbytes / 2**20:.1f} MiB",
            "-" if row.digest is None else row.digest[:16],
        )
        for row in rows
    ]
    screen.table("networks", table, ("model", "network", "parameters", "checkpoint", "sha256"))


def shipped_networks(model: str, root: Path) -> list[NetworkRow]:
    """The networks of `model`, counted from the checkpoints below `root`. Raises CheckpointError if one is missing."""
    from teleworld.generation.model import NETWORKS
    from teleworld.models.checkpoint import load_safetensors, resolve_checkpoint

    if not (root / model).is_dir():
        raise CheckpointError("checkpoint", f"{root / model} is not a folder")
    rows = []
    for network in NETWORKS:
        file = resolve_checkpoint(root / model, f"{network}.safetensors")
        tensors, _ = load_safetensors(file)
        parameters = sum(tensor.numel() for tensor in tensors.values())
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        rows.append(NetworkRow(model, network, parameters, file.stat().st_size, digest))
    return rows


def public_networks() -> list[NetworkRow]:
    """The Wan2.1 configurations, for checkpoints that the user brings; built without memory, to count them."""
    import torch

    from teleworld.models import dit

    configs: dict[str, Any] = {name: value for name, value in vars(dit).items() if name.startswith("WAN_")}
    rows = []
    for name, config in configs.items():
        with torch.device("meta"):
            network = dit.DiT(config)
        size = name.removeprefix("WAN_").replace("_", ".")
        rows.append(NetworkRow(f"wan {size}", "dit", sum(p.numel() for p in network.parameters())))
    return rows
