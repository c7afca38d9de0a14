"""`teleworld models`: the configurations that there are, how large each network is, and what checkpoint ships with it."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from teleworld.cli.console import Screen
from teleworld.world.errors import CheckpointError
from teleworld.world.spec import SPECS, is_emulated

if TYPE_CHECKING:
    from teleworld.generation.model_folder import ModelFolder


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
    folders = model_folders(root)
    rows = shipped_networks(folders) + public_networks()
    worlds = [
        (
            spec.name,
            f"{spec.lens.width} x {spec.lens.height}, shown {spec.output_size[0]} x {spec.output_size[1]}",
            f"{spec.fps:g}",
            str(spec.latents),
            " x ".join(map(str, spec.latent_shape)),
        )
        for spec in SPECS.values()
        if not is_emulated(spec.name)
    ]
    screen.table("worlds", worlds, ("model", "pixels", "frames/s", "latents a segment", "latent"))
    screen.say("")
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
    screen.say("")
    weights = [(folder.spec.name, folder.digest) for folder in folders]
    screen.table("weights, as a world or a chart names them at full precision", weights, ("model", "digest"))


def model_folders(root: Path) -> list[ModelFolder]:
    """Every model folder below `root`. Raises CheckpointError if there is none, or if one describes itself wrongly."""
    from teleworld.generation.model_folder import DESCRIPTION, ModelFolder

    if not root.is_dir():
        raise CheckpointError("checkpoint", f"{root} is not a folder")
    folders = [
        ModelFolder(path)
        for path in sorted(root.iterdir())
        if path.is_dir() and (path.name in SPECS or (path / DESCRIPTION).is_file())
    ]
    if not folders:
        raise CheckpointError(
            "checkpoint", f"{root} holds no model folder: {', '.join(SPECS)}, or one with {DESCRIPTION}"
        )
    return folders


def shipped_networks(folders: Sequence[ModelFolder]) -> list[NetworkRow]:
    """The networks of model folders, counted from their headers. Raises CheckpointError if one lacks a network."""
    from teleworld.generation.model_folder import NETWORKS
    from teleworld.models.conversion import look

    rows = []
    for folder in folders:
        learned = folder.spec.name
        for network in NETWORKS:
            file = folder.file(network)
            content = look(file)
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            rows.append(NetworkRow(learned, network, content.parameters, content.nbytes, digest))
    return rows


def public_networks() -> list[NetworkRow]:
    """The public configurations, for checkpoints that the user brings; built without memory, to count them."""
    import torch

    from teleworld.models import dit, stream_vae
    from teleworld.models.stream_vae.tiny import TinyStreamVAE

    builders: list[tuple[str, str, Callable[[], torch.nn.Module]]] = [
        ("wan 1.3B", "dit", lambda: dit.DiT(dit.WAN_1_3B)),
        ("wan 14B", "dit", lambda: dit.DiT(dit.WAN_14B)),
        ("wan 14B I2V", "dit", lambda: dit.DiT(dit.WAN_14B_I2V)),
        ("wan 18B", "dit", lambda: dit.DiT(dit.WAN_18B)),
        ("wan 2.1", "vae", lambda: stream_vae.WanStreamVAE(stream_vae.WAN21_VAE)),
        ("wan 2.2", "vae", lambda: stream_vae.WanStreamVAE(stream_vae.WAN22_VAE)),
        ("taew2_1", "vae", TinyStreamVAE),
    ]
    rows = []
    for model, network, build in builders:
        with torch.device("meta"):
            built = build()
        rows.append(NetworkRow(model, network, sum(p.numel() for p in built.parameters())))
    return rows
