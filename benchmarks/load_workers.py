"""Emulated workers of all four pools in one process on one event loop: the load under which `sessions.py` measures a gateway.

The cores, the servicers, the contracts and the boundary of a call are those of the real workers; devices are held by
timers. What a real worker has beside these, a computing thread with its hand-over, admission and a store of memories in
Redis, costs as much as the gateway does, and on a machine of two cores it would be what is measured.

    python -m benchmarks.load_workers    # TELEWORLD_EMULATED_LOG: where decodings are logged; prints the four addresses
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from services.decoder import servicer as decoder
from services.planner import servicer as planner
from services.populator import servicer as populator
from services.reconstructor import servicer as reconstructor
from teleworld.emulation.cores import cores_of
from teleworld.emulation.devices import Devices, Hold
from teleworld.emulation.model import EmulatedModel
from teleworld.memory.store import LocalMemoryStore
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server, ServerConfig, announce
from teleworld.scheduling.costs import table_of
from teleworld.scheduling.tasks import Pool
from teleworld.telemetry.pauses import settle
from teleworld.world.errors import PreconditionFailed
from teleworld.world.spec import spec_of

MODEL = "emulated-tiny"
SERVICES = {
    Pool.PLANNER: planner,
    Pool.POPULATOR: populator,
    Pool.RECONSTRUCTOR: reconstructor,
    Pool.DECODER: decoder,
}


class Settings(BaseSettings):
    """Of the environment."""

    teleworld_emulated_log: Path


class TimedDevices(Devices):
    """Devices whose holds end by a timer of the event loop: `wait` only notes the hold, `over` waits for it."""

    _held: tuple[Hold, str] | None = None

    def wait(self, hold: Hold, name: str) -> float:
        self._held = (hold, name)
        return 0.0

    async def over(self) -> None:
        """Wait until the hold that was noted last is over, and log it."""
        if self._held is not None:
            (hold, name), self._held = self._held, None
            await asyncio.sleep(hold.end - time.monotonic())
            super().wait(hold, name)


class LoadDesk:
    """What servicers ask of `services.common.desk.Desk`, without threads and admission."""

    def __init__(self, model: ModelDescription, core: Any, devices: TimedDevices) -> None:
        self.model = model
        self._core = core
        self._devices = devices

    async def answer(
        self, message: Any, read: Callable[[Any], Any], compute: Callable[[Any, Any], Any], write: Callable[[Any], Any]
    ) -> Any:
        """The answer to a task or a question."""
        answer = write(compute(self._core, read(message)))
        await self._devices.over()
        return answer

    task = tasks = answer

    def check_weights(self, pinned: str) -> None:
        """Raise PreconditionFailed for a question that is pinned to other weights."""
        if pinned != self.model.weights_digest:
            raise PreconditionFailed(f"pinned to weights {pinned}")


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    table, log = table_of(MODEL), Settings().teleworld_emulated_log
    served = next(iter(table.setups.values())).devices
    servers = []
    for pool in Pool:
        # Of the holds, `sessions.py` reads the decodings; to write the others down would only be load.
        devices = TimedDevices(sum(pool in pools for pools in served), log=log if pool is Pool.DECODER else None)
        model = EmulatedModel(spec_of(MODEL), table, devices)
        description = ModelDescription(MODEL, model.digest, slots=sum(pool in pools for pools in served))
        server = Server(pool.value, ServerConfig())
        desk: Any = LoadDesk(description, cores_of(model, LocalMemoryStore)[pool](), devices)
        SERVICES[pool].register(server, desk)
        servers.append(server)
    addresses = [await server.start() for server in servers]
    settle()
    for server in servers:
        server.ready()
    announce("serving", service="workers", address=",".join(addresses))
    await stop.wait()
    await asyncio.gather(*(server.drain() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
