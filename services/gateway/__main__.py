"""Start the gateway: `python -m services.gateway`."""

from __future__ import annotations

import asyncio
import logging
import sys

from pydantic import ValidationError

from services.common.process import EXIT_BAD_SETTINGS, EXIT_FAILED
from services.gateway import metrics
from services.gateway.assembly import assemble
from services.gateway.duties import Duties
from services.gateway.settings import GatewaySettings
from teleworld import telemetry
from teleworld.rpc import link
from teleworld.rpc.server import run
from teleworld.telemetry.pauses import LoopWatch, settle
from teleworld.world.errors import InvalidInput, TeleWorldError

_log = logging.getLogger(__name__)


def main() -> int:
    """Run the gateway until it is told to stop; returns the exit status."""
    try:
        settings = GatewaySettings()
    except ValidationError as error:
        for fault in error.errors():
            print(f"TELEWORLD_GATEWAY_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    if not settings.shared_memory:
        link.configure(None)
    try:
        watching = telemetry.start("gateway", settings.otlp_endpoint, settings.log_level)
    except InvalidInput as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_SETTINGS
    try:
        asyncio.run(_serve(settings))
    except TeleWorldError as error:
        _log.exception("the service cannot run")
        return EXIT_BAD_SETTINGS if isinstance(error, InvalidInput) else EXIT_FAILED
    finally:
        watching.shutdown()
    return 0


async def _serve(settings: GatewaySettings) -> None:
    server, worlds = assemble(settings)
    metrics.observe(worlds)

    async def warm_up() -> None:
        await worlds.start()
        settle()

    try:
        async with LoopWatch(), Duties(settings, worlds):
            await run(server, warm_up)
    finally:
        await worlds.close()


if __name__ == "__main__":
    raise SystemExit(main())
