"""Serves the page on this machine, and only to it.

The address holds a secret, so that other people on the same machine do not walk on the caller's key; a request from a page of
somebody else, which a browser would send too, is told by its Host and Origin. There is no TLS: the page never leaves the loopback
interface, which is also what makes browsers lend it their video decoder.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakSet

from aiohttp import WSCloseCode, web

from teleworld.cli.page.visit import Offer, Visit

HOST = "127.0.0.1"
LARGEST_PICTURE = 16 * 2**20
CLOSE_S = 2.0
_FILES = Path(__file__).parent / "files"
_OURS = frozenset({HOST, "localhost", "::1"})
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(offer: Offer, port: int) -> AsyncIterator[str]:
    """Inside, the page is served; yields its address. port: 0 chooses a free one."""
    secret = secrets.token_urlsafe(12)
    sockets: WeakSet[web.WebSocketResponse] = WeakSet()

    async def walk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=LARGEST_PICTURE, heartbeat=15.0)
        await socket.prepare(request)
        sockets.add(socket)
        await Visit(offer, socket).listen()
        return socket

    async def picture(request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        if name not in offer.pictures:
            raise web.HTTPNotFound
        return web.FileResponse(offer.pictures[name], headers=_HEADERS)

    async def pictures(request: web.Request) -> web.Response:
        return web.json_response(list(offer.pictures), headers=_HEADERS)

    async def file(request: web.Request) -> web.FileResponse:
        path = _FILES / (request.match_info["name"] or "index.html")
        if path.name not in {known.name for known in _FILES.iterdir()}:
            raise web.HTTPNotFound
        return web.FileResponse(path, headers=_HEADERS)

    async def close(app: web.Application) -> None:
        for socket in set(sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the command was stopped")

    app = web.Application(middlewares=[_only_ours])
    app.router.add_get(f"/{secret}/walk", walk)
    app.router.add_get(f"/{secret}/pictures", pictures)
    app.router.add_get(f"/{secret}/pictures/{{name}}", picture)
    app.router.add_get(f"/{secret}/{{name:[a-z.]*}}", file)
    app.on_shutdown.append(close)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}/{secret}/"
    finally:
        await runner.cleanup()


@web.middleware
async def _only_ours(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page of another site makes a browser ask: its Host or its Origin is another."""
    origin = request.headers.get("Origin")
    if urlsplit(f"//{request.host}").hostname not in _OURS or origin not in (None, f"http://{request.host}"):
        raise web.HTTPForbidden(text="this page is for the machine that serves it")
    return await handler(request)
