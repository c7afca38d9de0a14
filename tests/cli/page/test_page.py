"""The page of `teleworld play`, as a browser talks to it: a walk by keys, a reload, pictures of one's own, strangers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from teleworld.cli.page.visit import codec_of
from teleworld.client import Keys
from teleworld.video.h264 import decode_chunk
from teleworld.world.errors import InvalidInput
from tests.services.gateway.mesh import png

START = {"start": {"picture": "hall.png", "prompt": "a hall"}}


class Browser:
    """What the page's script does: it shows each chunk as it comes, and notes all that it is told."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.told: list[dict[str, Any]] = []
        self.chunks: list[dict[str, Any]] = []
        self.pictures: dict[int, bytes] = {}

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def hear(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Show chunks until something is told that is `done`."""
        while True:
            message = await self.socket.receive(timeout=20)
            assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
            if message.type is aiohttp.WSMsgType.BINARY:
                told = self.chunks[-1]
                self.pictures[told["chunk"]] = message.data
                await self.say(shown=told["chunk"])
            else:
                told = json.loads(message.data)
                self.told.append(told)
                if "chunk" in told:
                    self.chunks.append(told)
                    continue
            if done(told):
                return told


@asynccontextmanager
async def browsing(page: str, **headers: str) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as session, session.ws_connect(page + "walk", headers=headers) as socket:
        yield Browser(socket)


async def test_a_key_that_is_pressed_is_seen(page: str):
    async with browsing(page) as browser:
        await browser.say(**START)
        world = await browser.hear(lambda told: "world" in told)
        assert (world["fps"], world["seed"]) == (17.5, 7)
        await browser.hear(lambda told: told.get("chunk") == 1)
        await browser.say(keys=int(Keys.W | Keys.LEFT), press=1)
        press = await browser.hear(lambda told: "press" in told)
        seen = await browser.hear(lambda told: told.get("control", 0) >= press["control"] and "chunk" in told)
    assert [chunk["chunk"] for chunk in browser.chunks] == list(range(seen["chunk"] + 1))
    for chunk in browser.chunks:
        video = browser.pictures[chunk["chunk"]]
        assert sum(chunk["sizes"]) == len(video)
        assert chunk["keyframes"] == [True] + [False] * (len(chunk["sizes"]) - 1)
        pictures = decode_chunk(video)
        assert pictures.shape == (len(chunk["sizes"]), world["height"], world["width"], 3)
    assert browser.chunks[0]["codec"] == codec_of(browser.pictures[0])
    assert browser.chunks[0]["codec"].startswith("avc1.42")


async def test_a_page_that_is_loaded_again_goes_on_where_it_was(page: str):
    async with browsing(page) as browser:
        await browser.say(**START)
        world = await browser.hear(lambda told: "world" in told)
        await browser.say(keys=int(Keys.D), press=1)
        await browser.hear(lambda told: told.get("chunk") == 3)
        control = next(told["control"] for told in browser.told if "press" in told)
    async with browsing(page) as browser:
        await browser.say(resume=world["world"])
        assert (await browser.hear(lambda told: "world" in told))["world"] == world["world"]
        await browser.say(keys=int(Keys.A), press=1)
        await browser.hear(lambda told: told.get("chunk", 0) >= 6)
    assert browser.chunks[0]["chunk"] in (3, 4)  # the last one may have been told of before it was shown
    assert next(told["control"] for told in browser.told if "press" in told) > control


async def test_another_world_takes_the_place_of_the_first(page: str):
    async with browsing(page) as browser:
        await browser.say(**START)
        first = await browser.hear(lambda told: "world" in told)
        await browser.hear(lambda told: told.get("chunk") == 0)
        await browser.say(upload={"prompt": ""})
        await browser.socket.send_bytes(png())
        second = await browser.hear(lambda told: "world" in told)
        assert second["world"] != first["world"]
        assert (await browser.hear(lambda told: "chunk" in told))["chunk"] == 0


async def test_what_is_wrong_is_told_and_the_page_lives_on(page: str):
    async def complaint() -> str:
        return (await browser.hear(lambda told: "error" in told))["error"]

    async with browsing(page) as browser:
        await browser.say(upload={"prompt": ""})
        await browser.socket.send_bytes(b"not a picture")
        assert "image: must be a PNG or JPEG picture" in await complaint()
        await browser.socket.send_bytes(png())
        assert "picture: comes without an upload" in await complaint()
        await browser.say(start={"picture": "../hall.png", "prompt": ""})
        assert "picture: '../hall.png' is not offered" in await complaint()
        await browser.say(resume="worlds/of-somebody-else")
        assert "worlds/of-somebody-else" in await complaint()
        await browser.socket.send_str("{")
        assert "message: is not JSON" in await complaint()
        await browser.say(dance=True)
        assert "message: is none that this page knows" in await complaint()
        await browser.say(**START)
        await browser.hear(lambda told: told.get("chunk") == 0)


async def test_files_and_pictures_are_served_and_nothing_else(page: str):
    async with aiohttp.ClientSession() as session:

        async def status(path: str, **headers: str) -> int:
            async with session.get(path, headers=headers) as response:
                return response.status

        async with session.get(page) as index:
            text = await index.text()
            assert "default-src 'self'" in index.headers["Content-Security-Policy"]
        for name in ("page.js", "player.js", "style.css"):
            assert await status(page + name) == 200
        assert "page.js" in text and "style.css" in text
        assert await status(page + "pictures/hall.png") == 200
        assert await status(page + "pictures/other.png") == 404
        assert await status(page + "visit.py") == 404
        assert await status(page + "..%2fserver.py") == 404
        secret = page.rstrip("/").rsplit("/", 1)[1]
        assert await status(page.replace(secret, "guess")) == 404
        assert await status(page, Host="evil.example") == 403
        assert await status(page, Host="localhost:7480") == 200


async def test_another_sites_page_cannot_walk(page: str):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with browsing(page, Origin="https://evil.example"):
            pass
    assert refused.value.status == 403


def test_a_video_without_parameters_has_no_codec():
    with pytest.raises(InvalidInput, match="video: holds no sequence parameter set"):
        codec_of(b"\0\0\1\x65\x88")
