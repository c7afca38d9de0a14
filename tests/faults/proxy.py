"""A TCP proxy that misbehaves when it is told to: the network between two services, as bad as a test wants it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field

PIECE = 16 * 1024


@dataclass(eq=False)
class _Pair:
    """The two halves of a connection through the proxy."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        """Both peers get a reset, whatever was under way."""
        for writer in (self.near, self.far):
            with suppress(OSError):
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        for pump in self.pumps:
            pump.cancel()


class Proxy:
    """Between clients and the server at `target` (host:port). An async context manager; serves at `address`.

    delay: seconds that each piece of up to 16 KiB takes longer, both ways. While `silent`, connections stand and nothing
    passes. `corrupted` counts the bytes that were changed, `cuts` the connections that were reset in mid message.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self.delay = 0.0
        self.corrupted = 0
        self.cuts = 0
        self._open = asyncio.Event()
        self._open.set()
        self._to_corrupt = self._to_pass = 0
        self._cutting = False
        self._pairs: set[_Pair] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        await self._server.wait_closed()
        await asyncio.gather(*self._serving)

    @property
    def connections(self) -> int:
        """Connections that stand now."""
        return len(self._pairs)

    @property
    def silent(self) -> bool:
        """Whether nothing passes."""
        return not self._open.is_set()

    @silent.setter
    def silent(self, value: bool) -> None:
        (self._open.clear if value else self._open.set)()

    def reset(self) -> None:
        """Reset every connection now."""
        for pair in tuple(self._pairs):
            pair.reset()

    def cut(self, after: int) -> None:
        """Let so many bytes more from the server pass, then reset the connection in the middle of what it was sending."""
        self._cutting, self._to_pass = True, after

    def corrupt(self, pieces: int) -> None:
        """Change one byte in the middle of each of the next pieces from the server."""
        self._to_corrupt = pieces

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        host, port = self.target.rsplit(":", 1)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        pair.pumps = [
            asyncio.create_task(self._pump(pair, reader, far_writer, down=False)),
            asyncio.create_task(self._pump(pair, far_reader, writer, down=True)),
        ]
        await asyncio.wait(pair.pumps, return_when=asyncio.FIRST_COMPLETED)
        pair.reset()
        await asyncio.gather(*pair.pumps, return_exceptions=True)
        self._pairs.discard(pair)

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(PIECE):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._open.wait()
                if down:
                    piece = self._spoil(piece)
                    if self._cutting and len(piece) > self._to_pass:
                        writer.write(piece[: self._to_pass])
                        await writer.drain()
                        self._cutting = False
                        self.cuts += 1
                        return
                    self._to_pass -= len(piece) if self._cutting else 0
                writer.write(piece)
                await writer.drain()

    def _spoil(self, piece: bytes) -> bytes:
        if not self._to_corrupt:
            return piece
        self._to_corrupt -= 1
        self.corrupted += 1
        spoilt = bytearray(piece)
        spoilt[len(spoilt) // 2] ^= 0x10
        return bytes(spoilt)
