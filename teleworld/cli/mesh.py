"""A mesh of real processes on this machine: Redis, the four kinds of worker, and the gateway, each a process of its own.

Addresses are static: workers choose free ports and say which, and the gateway is told. The order of the end is the
order of dependence: the gateway drains first, while everything that its streams need still works; then the workers; Redis
last. Services are started by module name from a checkout; this package never imports them.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from teleworld.cli.placement import SERVICES, WorkerProcess, computing, emulated
from teleworld.cli.process import ServiceProcess
from teleworld.scheduling.costs import load_table, table_of
from teleworld.world.errors import DeadlineExceeded, InvalidInput, PreconditionFailed, Unavailable
from teleworld.world.spec import is_emulated

CHECKOUT = Path(__file__).resolve().parents[2]
START_S = 180.0
DRAIN_S = 15.0
REDIS_SCHEMES = ("redis", "rediss", "unix")
Result = TypeVar("Result")


@dataclass(frozen=True)
class MeshConfig:
    """What a local mesh consists of.

    redis_url: of a Redis that runs already; None starts an embedded one. threads: of an operation, in each worker.
    port: of the gateway; 0 chooses a free one. logs: a folder for one log file a process; None makes a temporary one.
    checkpoint: folder that holds a folder of weights for each model; None for the shipped ones. cost_table, setup: of an
    emulated model, the table's name or path and which of its sets of devices; None for the default ones. The set-up says
    how many populators there are. batch: tasks of several worlds that a worker may be given in one call; None leaves that to
    the environment.
    """

    model: str = "nano"
    populators: int = 2
    redis_url: str | None = None
    threads: int = 1
    host: str = "127.0.0.1"
    port: int = 0
    logs: Path | None = None
    checkpoint: Path | None = None
    cost_table: str | None = None
    setup: str | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.populators < 1:
            raise InvalidInput("populators", "at least one is needed")
        if self.threads < 1:
            raise InvalidInput("threads", "at least one is needed")
        if not 0 <= self.port <= 65535:
            raise InvalidInput("port", "must lie between 0 and 65535")
        if not is_emulated(self.model) and (self.cost_table or self.setup):
            raise InvalidInput("setup", f"{self.model} is not an emulated model")
        if self.checkpoint is not None and not (self.checkpoint / self.model).is_dir():
            raise InvalidInput("checkpoint", f"{self.checkpoint} has no folder {self.model}")
        if self.redis_url is not None and urlsplit(self.redis_url).scheme not in REDIS_SCHEMES:
            raise InvalidInput("redis", f"must be a URL that begins with one of {', '.join(REDIS_SCHEMES)}")


class LocalMesh:
    """An async context manager: inside, the mesh serves at `address`. `tell` hears of what happens, a line at a time."""

    def __init__(self, config: MeshConfig, tell: Callable[[str], None] = lambda line: None) -> None:
        self.config = config
        self.address = ""
        self.logs = config.logs or Path(tempfile.mkdtemp(prefix="teleworld-logs-"))
        self.processes: dict[str, ServiceProcess] = {}
        self._tell = tell
        self._failed: asyncio.Future[None] | None = None

    async def __aenter__(self) -> LocalMesh:
        if not (CHECKOUT / "services").is_dir():
            raise PreconditionFailed(f"a local mesh needs a checkout with its services; {CHECKOUT} has none")
        self.logs.mkdir(parents=True, exist_ok=True)
        self._failed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(START_S):
                await self._start()
        except TimeoutError:
            await self._stop()
            raise DeadlineExceeded(
                f"the mesh did not serve within {START_S:.0f} s; its logs are in {self.logs}"
            ) from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stop()

    async def during(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do `work`, unless a process of the mesh dies too often to be started again: that raises Unavailable."""
        assert self._failed is not None
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._failed), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._failed.result()
            return await task
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def _start(self) -> None:
        redis = self.config.redis_url or await self._start_redis()
        groups: dict[str, list[ServiceProcess]] = {service: [] for service in SERVICES}
        for worker in self._placed():
            groups[worker.service].append(self._launch_worker(worker, redis))
        workers = [worker for group in groups.values() for worker in group]
        await asyncio.gather(*(worker.listening() for worker in workers))
        addresses = {
            f"TELEWORLD_GATEWAY_{service.upper()}_ADDRESSES": ",".join(worker.address for worker in group)
            for service, group in groups.items()
        }
        gateway = self._launch(
            "gateway",
            "services.gateway",
            "TELEWORLD_GATEWAY_PORT",
            TELEWORLD_GATEWAY_REDIS_URL=redis,
            TELEWORLD_GATEWAY_HOST=self.config.host,
            TELEWORLD_GATEWAY_PORT=str(self.config.port),
            **addresses,
        )
        await asyncio.gather(*(self._served(process) for process in (*workers, gateway)))
        self.address = gateway.address

    async def _start_redis(self) -> str:
        redis = self._launch("redis", "teleworld.cli.embedded_redis", None)
        await self._served(redis)
        return redis.address

    def _placed(self) -> list[WorkerProcess]:
        config = self.config
        if not is_emulated(config.model):
            return computing(config.populators)
        table = table_of(config.model) if config.cost_table is None else load_table(config.cost_table)
        return emulated(table, config.setup, self.logs)

    def _launch_worker(self, worker: WorkerProcess, redis: str) -> ServiceProcess:
        variables = {
            "TELEWORLD_MODEL": self.config.model,
            "TELEWORLD_THREADS": str(self.config.threads),
            "TELEWORLD_HOST": "127.0.0.1",
            "TELEWORLD_PORT": "0",
            "TELEWORLD_REDIS_URL": redis,
        }
        if self.config.checkpoint is not None:
            variables["TELEWORLD_CHECKPOINT"] = str(self.config.checkpoint.resolve())
        if self.config.cost_table is not None:
            named = self.config.cost_table
            variables["TELEWORLD_EMULATED_TABLE"] = str(Path(named).resolve()) if "/" in named else named
        if self.config.batch is not None:
            variables["TELEWORLD_BATCH"] = str(self.config.batch)
        variables |= worker.variables
        return self._launch(worker.name, f"services.{worker.service}", "TELEWORLD_PORT", **variables)

    def _launch(self, name: str, module: str, port_variable: str | None, **variables: str) -> ServiceProcess:
        log = self.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        process = ServiceProcess(
            name,
            module,
            os.environ | variables,
            CHECKOUT,
            log,
            tell=self._tell,
            gave_up=self._give_up,
            port_variable=port_variable,
        )
        self.processes[name] = process
        process.start()
        return process

    async def _served(self, process: ServiceProcess) -> None:
        await process.serving()
        self._tell(f"{process.name} serves at {process.address}")

    def _give_up(self, error: Unavailable) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # counts as heard even if nobody waits for it

    async def _stop(self) -> None:
        last = [name for name in ("gateway", "redis") if name in self.processes]
        workers = [process for name, process in self.processes.items() if name not in last]
        if "gateway" in last:
            await self.processes["gateway"].stop(DRAIN_S)
        await asyncio.gather(*(worker.stop(DRAIN_S) for worker in workers))
        if "redis" in last:
            await self.processes["redis"].stop(DRAIN_S)
