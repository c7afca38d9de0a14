"""One child process of the local mesh: started, listened to, started again when it dies, stopped.

A service tells on stdout, one JSON object a line, when it listens (and where) and when it serves. Whatever else it says
goes to its log file. A child that dies is started again on the port that it had, so that the addresses given to its peers
stay true; one that dies over and over is given up.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from teleworld.world.errors import Unavailable

RESTARTS = 3
RESTART_WINDOW_S = 60.0
RESTART_PAUSE_S = 0.2


class ServiceProcess:
    """A child that runs `module` with `environment` in `folder`; its output goes to `log`.

    tell: hears, in one line, of a death and a restart. gave_up: is called once, when it is not started again.
    port_variable: where the environment says which port to listen on; None for a process that is never started again,
    because what it held died with it.
    """

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        *,
        tell: Callable[[str], None],
        gave_up: Callable[[Unavailable], None],
        port_variable: str | None,
    ) -> None:
        self.name = name
        self.log = log
        self.address = ""
        self._module = module
        self._port_variable = port_variable
        self._environment = dict(environment)
        self._folder = folder
        self._tell = tell
        self._gave_up = gave_up
        self._listening = asyncio.Event()
        self._serving = asyncio.Event()
        self._stopping = False
        self._deaths: list[float] = []
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else None

    def start(self) -> None:
        """Begin to run it; `listening` and `serving` tell when it does."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def listening(self) -> str:
        """Its address, as soon as it is known. Raises Unavailable if it ends before that."""
        await self._reach(self._listening)
        return self.address

    async def serving(self) -> None:
        """Return when it serves. Raises Unavailable if it ends before that."""
        await self._reach(self._serving)

    async def stop(self, seconds: float) -> None:
        """Let it drain; kill it after `seconds`."""
        self._stopping = True
        if self._keeper is None:
            return
        with suppress(ProcessLookupError):
            if self._process is not None and self._process.returncode is None:
                self._process.send_signal(signal.SIGTERM)
        done, _ = await asyncio.wait((self._keeper,), timeout=seconds)
        if not done:
            self._tell(f"{self.name} did not drain within {seconds:.0f} s and was killed")
            with suppress(ProcessLookupError):
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()
            await asyncio.wait((self._keeper,))

    async def _reach(self, event: asyncio.Event) -> None:
        if self._keeper is None:
            raise Unavailable(f"{self.name} was not started")
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((waiting, self._keeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not event.is_set():
            raise Unavailable(self._obituary())

    async def _keep(self) -> None:
        """Run it until it is stopped, or has died too often. A death before it ever served is final."""
        while not self._stopping:
            status = await self._run_once()
            if self._stopping:
                return
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < RESTART_WINDOW_S] + [now]
            if self._port_variable is None or not self._serving.is_set() or len(self._deaths) > RESTARTS:
                self._gave_up(Unavailable(self._obituary()))
                return
            self._tell(f"{self.name} died ({_cause(status)}); starting it again on {self.address}")
            await asyncio.sleep(RESTART_PAUSE_S)

    async def _run_once(self) -> int:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "teleworld.cli.child",
                str(os.getpid()),
                self._module,
                cwd=self._folder,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a terminal's ctrl-C must reach the launcher alone, which knows the order
            )
            if self._stopping:
                self._process.terminate()
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                if not self._heard(line):
                    log.write(line)
            return await self._process.wait()

    def _heard(self, line: bytes) -> bool:
        try:
            message = json.loads(line)
            event = message["event"]
        except (ValueError, KeyError, TypeError):
            return False
        if "address" in message:
            self.address = message["address"]
            if self._port_variable is not None:
                self._environment[self._port_variable] = self.address.rpartition(":")[2]
            self._listening.set()
        if event == "serving":
            self._serving.set()
        return True

    def _obituary(self) -> str:
        status = self._process.returncode if self._process is not None else None
        last = _last_line(self.log)
        return f"{self.name} stopped ({_cause(status)})" + (f": {last}" if last else "") + f"; its log is {self.log}"


def _cause(status: int | None) -> str:
    if status is None:
        return "it did not start"
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _last_line(log: Path) -> str:
    """What a dead service said last, in short."""
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").strip().splitlines()
    if not lines:
        return ""
    try:
        record = json.loads(lines[-1])
        text = str(record.get("exception") or record.get("event") or lines[-1]).strip().splitlines()[-1]
    except (ValueError, AttributeError):
        text = lines[-1]
    return text[:200]
