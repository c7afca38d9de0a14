"""A mesh of real processes with replicas of everything, whose members are killed, frozen, drained and replaced one by one.

Addresses are fixed from the start: every member has a port of its own, and gateways are told those of workers that do not
run yet, too, as if discovery had named them. Between a gateway and its workers, and before each gateway, there may be a
proxy each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from teleworld.rpc.segments import FOLDER, Segments
from teleworld.rpc.tls import TlsFiles
from teleworld.scheduling.tasks import Pool
from tests.faults.proxy import Proxy
from tests.faults.store import Redis, free_port
from tests.services.processes import ROOT, Process

GATEWAY = "gateway"
DRAIN_S = 15.0
MARK = "TELEWORLD_FLEET_OF_A_TEST"


class Member:
    """One service of the fleet, whichever process plays it at the moment."""

    def __init__(self, service: str, name: str, port: int, variables: Mapping[str, str], log: Path) -> None:
        self.service, self.name, self.log = service, name, log
        self.address = f"127.0.0.1:{port}"
        self.variables = dict(variables)
        self.process: Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.child.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.child.returncode is None

    async def start(self, **variables: str) -> None:
        """Start it, again if need be; returns when it serves."""
        await self.launch(**variables)
        await self.serving()

    async def launch(self, **variables: str) -> None:
        """Start it without waiting until it serves."""
        with self.log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "teleworld.cli.child",
                str(os.getpid()),
                f"services.{self.service}",
                cwd=ROOT,
                env=os.environ | {MARK: str(self.log.parent)} | self.variables | variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.process = Process(child)

    async def serving(self) -> None:
        """Return when it serves."""
        assert self.process is not None
        for patience in (True, True, False):  # where many tests run at a time, ten processes take long to start
            try:
                await self.process.heard("serving")
                return
            except TimeoutError:
                if not patience:
                    raise
            except AssertionError:
                raise AssertionError(f"{self.name} ended before it served: {self.log.read_text()[-2000:]}") from None

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it is there."""
        if self.alive:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def drain(self) -> int:
        """SIGTERM; returns the exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def end(self) -> int:
        """Drain it if it runs, or kill it when that takes too long; returns the exit status."""
        if not self.alive:
            return 0
        try:
            return await self.drain()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return await self.ended()

    async def ended(self) -> int:
        """The exit status."""
        assert self.process is not None
        return await self.process.ended(DRAIN_S)


@dataclass
class Fleet:
    """See the module's text. An async context manager; `replicas` of each worker service and of the gateway run inside.

    model: a name; tiny computing models need `checkpoint`. spares: members of each service that have an address and are not
    started. proxied: whether proxies stand before workers and gateways. tls: certificates by service; plaintext without.
    environment: of every process, by whole names. variables: of workers; gateway: of gateways, without their prefixes.
    """

    folder: Path
    model: str = "emulated-tiny"
    checkpoint: Path | None = None
    replicas: int = 2
    spares: int = 0
    proxied: bool = False
    durable: bool = True
    tls: Mapping[str, TlsFiles] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    gateway: dict[str, str] = field(default_factory=dict)
    redis: Redis = field(init=False)
    members: dict[str, list[Member]] = field(init=False, default_factory=dict)
    proxies: dict[str, Proxy] = field(init=False, default_factory=dict)
    badly_ended: list[str] = field(init=False, default_factory=list)

    async def __aenter__(self) -> Fleet:
        self._stack = AsyncExitStack()
        self._shared = segment_files()
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        for member in self.all():
            member.signal(signal.SIGCONT)
        gateways = self.members.get(GATEWAY, [])
        for members in (gateways, [member for member in self.all() if member.service != GATEWAY]):
            ended = await asyncio.gather(*(member.end() for member in members))
            self.badly_ended += [f"{m.name} ended with {end}" for m, end in zip(members, ended, strict=True) if end]
        await self._stack.aclose()
        await self.redis.stop()

    def all(self) -> list[Member]:
        """Every member, running or not."""
        return [member for members in self.members.values() for member in members]

    def running(self, service: str) -> list[Member]:
        """The members of a service that have a process."""
        return [member for member in self.members[service] if member.alive]

    def member(self, name: str) -> Member:
        """The member called so, `planner-1` for example."""
        return next(member for member in self.all() if member.name == name)

    def target(self, number: int = 0) -> str:
        """The address of a gateway, through its proxy if there is one."""
        return self._seen(self.members[GATEWAY][number])

    @property
    def authority(self) -> bytes | None:
        """What clients trust."""
        return self.tls[GATEWAY].authority.read_bytes() if self.tls else None

    def leaks(self) -> list[str]:
        """After the end: processes, services that did not drain, and shared memory that a sweep does not find."""
        pids = [process.pid for process in psutil.process_iter() if _lives_in(self.folder, process)]
        sweeper = Segments()
        try:
            left = [name for name in segment_files() - self._shared if not _held(name)]
        finally:
            sweeper.close()
        return [f"process {pid}" for pid in pids] + self.badly_ended + left

    async def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "redis").mkdir(exist_ok=True)
        self.redis = Redis(self.folder / "redis", durable=self.durable)
        await self.redis.start()
        for pool in Pool:
            await self._make(pool.value, self._worker_variables() | self._tls(pool.value, "TELEWORLD"))
        workers = [m for pool in Pool for m in self.members[pool.value][: self.replicas]]
        for member in workers:
            await member.launch()
        await asyncio.gather(*(member.serving() for member in workers))
        given = {f"{pool.value}_addresses": ",".join(map(self._seen, self.members[pool.value])) for pool in Pool} | {
            "redis_url": self.redis.url,
            "lease_seconds": "5",
            "drain_seconds": "5",
        }
        prefixed = {f"TELEWORLD_GATEWAY_{name.upper()}": value for name, value in (given | self.gateway).items()}
        await self._make(GATEWAY, prefixed | self._tls(GATEWAY, "TELEWORLD_GATEWAY"))
        await asyncio.gather(*(member.start() for member in self.members[GATEWAY][: self.replicas]))

    async def _make(self, service: str, variables: Mapping[str, str]) -> None:
        port_variable = "TELEWORLD_GATEWAY_PORT" if service == GATEWAY else "TELEWORLD_PORT"
        self.members[service] = []
        for number in range(1, self.replicas + self.spares + 1):
            port, name = free_port(), f"{service}-{number}"
            member = Member(
                service,
                name,
                port,
                {**self.environment, **variables, port_variable: str(port)},
                self.folder / f"{name}.log",
            )
            self.members[service].append(member)
            if self.proxied:
                self.proxies[name] = await self._stack.enter_async_context(Proxy(member.address))

    def _worker_variables(self) -> dict[str, str]:
        given = {"model": self.model, "redis_url": self.redis.url, "drain_seconds": "5", "threads": "1"}
        if self.checkpoint is not None:
            given["checkpoint"] = str(self.checkpoint)
        return {f"TELEWORLD_{name.upper()}": value for name, value in (given | self.variables).items()}

    def _tls(self, service: str, prefix: str) -> dict[str, str]:
        if (files := self.tls.get(service)) is None:
            return {}
        named = {"CERTIFICATE": files.certificate, "KEY": files.key, "AUTHORITY": files.authority}
        return {f"{prefix}_TLS_{name}": str(path) for name, path in named.items()}

    def _seen(self, member: Member) -> str:
        return self.proxies[member.name].address if member.name in self.proxies else member.address


def segment_files() -> set[str]:
    """Names of all shared memory segments of meshes on this machine."""
    return {path.name for path in FOLDER.glob("teleworld.*") if not path.name.endswith(".lock")}


def _held(name: str) -> bool:
    """Whether the process that a segment belongs to lives: another mesh's segments are none of ours."""
    return (FOLDER / f"teleworld.{name.split('.')[1]}.lock").exists()


def _lives_in(folder: Path, process: psutil.Process) -> bool:
    """Whether a process belongs to the fleet of that folder: by its environment, or by what it was told."""
    with suppress(psutil.Error):
        return process.environ().get(MARK) == str(folder) or any(str(folder) in part for part in process.cmdline())
    return False
