"""Which mesh a command walks over: one that runs already, or a private one on this machine for as long as the command lasts."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from teleworld.cli.console import Screen
from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.client import Patience, WorldClient
from teleworld.world.errors import InvalidInput

KEY_VARIABLE, AUTHORITY_VARIABLE = "TELEWORLD_API_KEY", "TELEWORLD_TLS_AUTHORITY"
Result = TypeVar("Result")


def add_gateway(to: argparse._ActionsContainer) -> None:
    """The option that names a running mesh."""
    to.add_argument(
        "--gateway",
        metavar="HOST:PORT",
        help="a running mesh; default: a private one on this machine. "
        f"{KEY_VARIABLE} holds its key or token, {AUTHORITY_VARIABLE} names the PEM file that its TLS is checked with",
    )


def add_private_mesh(parser: argparse.ArgumentParser) -> None:
    """The options of a private mesh, and of how long to try a gateway."""
    parser.add_argument("--populators", type=int, default=2, metavar="N", help="of the private mesh (default: 2)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of a worker's operation (default: 1)")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights; default: the shipped ones")
    parser.add_argument(
        "--patience", type=float, default=30.0, metavar="S", help="how long to try a gateway that is away (default: 30)"
    )
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="logs of the private mesh; default: a temporary folder"
    )


async def over_mesh(
    options: argparse.Namespace, model: str, screen: Screen, work: Callable[[WorldClient], Coroutine[Any, Any, Result]]
) -> Result:
    """Do `work` with a client of the mesh that the options above choose; a private one serves `model`, and ends behind it.

    Raises InvalidInput for a bad option, or a file of the authority that cannot be read; Unavailable when the private mesh cannot
    be kept alive.
    """
    if options.patience < 0:
        raise InvalidInput("patience", "must not be negative")
    if options.gateway:
        return await _with_client(options.gateway, options.patience, work)
    config = MeshConfig(
        model=model,
        populators=options.populators,
        threads=options.threads,
        logs=options.logs,
        checkpoint=options.checkpoint,
        batch=1,  # there is one world, and trying batches would delay it
    )
    mesh = LocalMesh(config, screen.say)
    screen.say(f"starting a local mesh; its logs are in {mesh.logs}")
    async with mesh:
        try:
            return await mesh.during(_with_client(mesh.address, options.patience, work))
        finally:
            screen.say("draining the mesh")


async def _with_client(
    gateway: str, patience: float, work: Callable[[WorldClient], Coroutine[Any, Any, Result]]
) -> Result:
    authority = await asyncio.to_thread(_authority)
    token = os.environ.get(KEY_VARIABLE, "")
    async with WorldClient(gateway, patience=Patience(total_s=patience), token=token, authority=authority) as client:
        return await work(client)


def _authority() -> bytes | None:
    path = os.environ.get(AUTHORITY_VARIABLE)
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(AUTHORITY_VARIABLE, f"{path} cannot be read: {error.strerror}") from error
