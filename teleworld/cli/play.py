"""`teleworld play`: walk by keyboard, in a browser on this machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import webbrowser
from pathlib import Path

from teleworld.cli.console import Screen
from teleworld.cli.located import settle_model
from teleworld.cli.mesh import CHECKOUT
from teleworld.cli.page.server import HOST, LARGEST_PICTURE, serving
from teleworld.cli.page.visit import Offer
from teleworld.cli.ports import check_port
from teleworld.cli.reach import add_gateway, add_private_mesh, over_mesh
from teleworld.client import WorldClient
from teleworld.world.errors import InvalidInput

START_PICTURES = CHECKOUT / "examples" / "start"
PORT = 7480


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `teleworld play`."""
    parser.add_argument(
        "--image", type=Path, action="append", default=[], metavar="FILE",
        help="a start picture to offer, PNG or JPEG; may be given several times; default: the shipped ones",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=PORT, help=f"of the page; 0 chooses a free one (default: {PORT})")
    parser.add_argument("--no-browser", action="store_true", help="say where the page is, but do not open it")
    parser.add_argument("--seed", type=int, help="of the noise, 0 or more; default: drawn at random for each world")
    parser.add_argument("--model", default="nano", help="name of the model, or its folder (default: nano)")
    add_gateway(parser)
    add_private_mesh(parser)


async def run(options: argparse.Namespace, screen: Screen) -> None:
    """Serve the page until the task is cancelled, which is how it ends well. Raises InvalidInput before anything is started."""
    spec = settle_model(options)
    if options.seed is not None and not 0 <= options.seed < 2**63:
        raise InvalidInput("seed", "must be 0 or more, and below 2^63")
    check_port(HOST, options.port)
    pictures = offered(options.image)

    async def serve(client: WorldClient) -> None:
        async with serving(Offer(client, pictures, spec.name, options.seed, {}), options.port) as address:
            screen.say(f"walk by keyboard at {address}   ctrl-C ends it")
            if not options.no_browser:
                await asyncio.to_thread(show, address)
            await asyncio.Event().wait()

    with contextlib.suppress(asyncio.CancelledError):
        await over_mesh(options, spec.name, screen, serve)
    screen.say("stopped")


def offered(images: list[Path]) -> dict[str, Path]:
    """Start pictures by their file's name: those given, or the shipped ones where there is a checkout.

    Raises InvalidInput(`image`) for a file that cannot be read, is too large, or has the name of another.
    """
    pictures: dict[str, Path] = {}
    for path in images or sorted(START_PICTURES.glob("*.png")):
        try:
            size = path.stat().st_size
            path.open("rb").close()
        except OSError as error:
            raise InvalidInput("image", f"{path} cannot be read: {error.strerror}") from error
        if size > LARGEST_PICTURE:
            raise InvalidInput("image", f"{path} has {size} bytes; at most {LARGEST_PICTURE} are taken")
        if path.name in pictures:
            raise InvalidInput("image", f"{path} has the name of {pictures[path.name]}")
        pictures[path.name] = path
    return pictures


def show(address: str) -> None:
    """Open the page, where there is a screen: a text browser would only take the terminal away."""
    if sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(address)
