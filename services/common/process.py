"""The life of a worker process, the same for the four worker services."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from services.common import sizes
from services.common.desk import Desk
from services.common.families import Maker, maker_of
from services.common.settings import WorkerSettings
from teleworld import telemetry
from teleworld.rpc import link
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server, run
from teleworld.telemetry.pauses import LoopWatch, settle
from teleworld.world.errors import InvalidInput, TeleWorldError

Core = TypeVar("Core")
Settings = TypeVar("Settings", bound=WorkerSettings)

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2

_log = logging.getLogger(__name__)


def main(
    service: str,
    settings_type: type[Settings],
    load: Callable[[Settings], tuple[ModelDescription, Core]],
    register: Callable[[Server, Desk[Core]], None],
) -> int:
    """Run a worker until it is told to stop; returns the exit status.

    load: makes the core, on the computing thread. register: adds the service's servicer for a desk to the server.
    """
    try:
        settings = settings_type()
        maker = maker_of(service, settings, load)
    except ValidationError as error:
        for fault in error.errors():
            print(f"TELEWORLD_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    limit_threads(settings.threads)
    if not settings.shared_memory:
        link.configure(None)
    try:
        watching = telemetry.start(service, settings.otlp_endpoint, settings.log_level)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_SETTINGS
    try:
        asyncio.run(_serve(service, settings, maker, register))
    except TeleWorldError as error:
        _log.exception("the service cannot run")
        return EXIT_BAD_SETTINGS if isinstance(error, InvalidInput) else EXIT_FAILED
    finally:
        watching.shutdown()
    return 0


async def _serve(
    service: str,
    settings: Settings,
    maker: Maker[Core],
    register: Callable[[Server, Desk[Core]], None],
) -> None:
    desk: Desk[Core] = Desk(service, settings.queue, maker.slots)
    server = Server(service, settings.server())
    register(server, desk)
    server.on_drain(desk.close)
    if (shared := link.segments()) is not None:
        sizes.caches.track(shared, lambda held: {"tensors": held.nbytes})

    async def warm_up() -> None:
        await desk.open(maker.load)
        settle()

    async with LoopWatch():
        await run(server, warm_up)


def limit_threads(threads: int) -> None:
    """Tell the numerical libraries, which read this when they are first imported, how many threads an operation may use."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(threads)
