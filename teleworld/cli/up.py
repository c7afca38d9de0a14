"""`teleworld up`: a mesh on this machine until ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from teleworld.cli.console import Screen
from teleworld.cli.located import settle_model
from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.cli.ports import check_port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld up`."""
    parser.add_argument("--host", default="127.0.0.1", help="interface of the gateway (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7400, help="port of the gateway; 0: a free one (default: 7400)")
    parser.add_argument("--redis", metavar="URL", help="a Redis that runs already; default: an embedded one")
    parser.add_argument("--populators", type=int, default=2, metavar="N", help="how many there are (default: 2)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of a worker's operation (default: 1)")
    parser.add_argument("--model", default="nano", help="name of the model, or its folder (default: nano)")
    parser.add_argument("--cost-table", metavar="NAME", help="of an emulated model; default: the one that holds for it")
    parser.add_argument(
        "--setup", metavar="NAME", help="the devices of an emulated model; default: its table's first set"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="weights; default: the shipped ones")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="one log file a process; default: a temporary folder")


async def run(options: argparse.Namespace, screen: Screen) -> None:
    """Serve until the task is cancelled, which is how it ends well, then drain.

    Raises InvalidInput for a bad option or a port in use, Unavailable when a process cannot be kept alive.
    """
    settle_model(options)
    check_port(options.host, options.port)
    config = MeshConfig(
        model=options.model,
        populators=options.populators,
        redis_url=options.redis,
        threads=options.threads,
        host=options.host,
        port=options.port,
        logs=options.logs,
        checkpoint=options.checkpoint,
        cost_table=options.cost_table,
        setup=options.setup,
    )
    mesh = LocalMesh(config, screen.say)
    screen.say(f"starting the mesh; its logs are in {mesh.logs}")
    async with mesh:
        screen.say(f"walk with: teleworld generate --gateway {mesh.address} ...   ctrl-C drains")
        with contextlib.suppress(asyncio.CancelledError):
            await mesh.during(asyncio.Event().wait())
        screen.say("draining")
    screen.say("stopped")
