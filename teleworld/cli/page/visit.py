"""One open page and the world that it walks through.

The page speaks JSON, one object a message; a start picture of its own follows its `upload` as a binary message. What is told:

    {"start": {"picture": NAME, "prompt": TEXT}}    make a world of a picture that was offered, and walk
    {"upload": {"prompt": TEXT}}                     the same of the picture in the next message
    {"resume": "worlds/ID"}                          go on in a world of an earlier visit, after a reload
    {"keys": MASK, "press": N}                       these keys are held from now on (`Keys`); N numbers the presses
    {"shown": CHUNK}                                 the chunk is on the screen
    {"pause": true or false}, {"prompt": TEXT}

It is told of its world, of each press its control's sequence number, and of each chunk where its pictures begin and end in
the binary message that follows. The page is the player: a chunk counts as consumed when it is shown, so that the mesh makes
just enough and keys bind late.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from teleworld.client import Attached, Chunk, Keys, Pace, Receipt, Rewound, Walk, World, WorldClient
from teleworld.video.annexb import SPS, access_units
from teleworld.world.controls import ALL_KEYS
from teleworld.world.errors import InvalidInput, NotFound, TeleWorldError

CREDIT = 4
"""Chunks that may be under way and not yet shown: more would only let keys bind earlier."""


@dataclass(frozen=True)
class Offer:
    """What every visit may walk through.

    pictures: start pictures by name. model: of new worlds. seed: of their noise; None draws one for each. sequences: the
    newest control of each world that was walked through, which the next walk of it goes on from.
    """

    client: WorldClient
    pictures: Mapping[str, Path]
    model: str
    seed: int | None
    sequences: MutableMapping[str, int]


class Visit:
    """What one page says and is told. `hear` never waits for the mesh; `leave` ends the walk."""

    def __init__(self, offer: Offer, socket: web.WebSocketResponse) -> None:
        self._offer = offer
        self._socket = socket
        self._walk: Walk | None = None
        self._keys = Keys.NONE
        self._upload: str | None = None
        self._walking: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Hear the page until it is closed."""
        try:
            async for message in self._socket:
                try:
                    await self._hear(message.type, message.data)
                except TeleWorldError as error:
                    await self._tell(error=error.message)
        finally:
            await self._end()

    async def _hear(self, kind: WSMsgType, data: Any) -> None:
        if kind is WSMsgType.BINARY:
            prompt, self._upload = self._upload, None
            if prompt is None:
                raise InvalidInput("picture", "comes without an upload before it")
            await self._begin(self._create(data, prompt))
            return
        match _parsed(data):
            case {"start": {"picture": str(name), "prompt": str(prompt)}}:
                if name not in self._offer.pictures:
                    raise InvalidInput("picture", f"{name!r} is not offered")
                picture = await asyncio.to_thread(self._offer.pictures[name].read_bytes)
                await self._begin(self._create(picture, prompt))
            case {"upload": {"prompt": str(prompt)}}:
                self._upload = prompt
            case {"resume": str(name)}:
                await self._begin(self._return_to(name))
            case {"keys": int(mask), "press": int(press)}:
                self._keys = Keys(mask) & ALL_KEYS
                if self._walk is not None:
                    await self._tell(press=press, control=self._hold(self._walk))
            case {"shown": int(chunk)} if self._walk is not None:
                self._walk.ack(chunk)
            case {"pause": bool(paused)} if self._walk is not None:
                self._walk.pause() if paused else self._walk.resume()
            case {"prompt": str(text)} if self._walk is not None:
                self._walk.prompt(text)
            case {"shown": _} | {"pause": _} | {"prompt": _}:
                pass  # said while a walk was ending
            case _:
                raise InvalidInput("message", "is none that this page knows")

    async def _begin(self, opening: Coroutine[Any, Any, World]) -> None:
        await self._end()
        self._walking = asyncio.create_task(self._stream(opening), name="visit")

    async def _end(self) -> None:
        walking, self._walking = self._walking, None
        if walking is not None:
            walking.cancel()
            await asyncio.wait((walking,))

    async def _create(self, picture: bytes, prompt: str) -> World:
        offer = self._offer
        return await offer.client.create_world(picture, prompt=prompt, seed=offer.seed, model=offer.model)

    async def _return_to(self, name: str) -> World:
        if name not in self._offer.sequences:
            raise NotFound(name)
        return await self._offer.client.get_world(name)

    async def _stream(self, opening: Coroutine[Any, Any, World]) -> None:
        """Walk to the end, and tell the page why it came. A page that has gone hears nothing."""
        with suppress(ConnectionResetError):
            try:
                world = await opening
                await self._tell(
                    world=world.name, fps=world.fps, width=world.width, height=world.height, seed=world.seed
                )
                await self._walk_through(world)
            except TeleWorldError as error:
                await self._tell(error=error.message)

    async def _walk_through(self, world: World) -> None:
        sequence = self._offer.sequences.setdefault(world.name, 0)
        walking = self._offer.client.walk(
            world.name, pace=Pace.REALTIME, credit=CREDIT, acknowledge=False, sequence=sequence
        )
        async with walking as walk:
            self._walk = walk
            try:
                self._hold(walk)
                async for event in walk:
                    match event:
                        case Attached():
                            await self._tell(attached=event.next_chunk)
                        case Chunk():
                            await self._show(event)
                        case Rewound():
                            await self._tell(rewound=event.to_chunk)
                        case Receipt():
                            pass  # a press is over when its picture is seen, which the page itself sees
            finally:
                self._walk = None
                self._offer.sequences[world.name] = walk.sequence
        assert walk.end is not None
        await self._tell(error=walk.end.message or f"the walk is over: {walk.end.reason.value}")

    def _hold(self, walk: Walk) -> int:
        return walk.hold(self._keys)

    async def _show(self, chunk: Chunk) -> None:
        units = access_units(chunk.video)
        pictures = [unit.to_bytes() for unit in units]
        await self._tell(
            chunk=chunk.index,
            first_frame=chunk.first_frame,
            control=chunk.control_sequence,
            codec=codec_of(chunk.video),
            sizes=[len(picture) for picture in pictures],
            keyframes=[unit.keyframe for unit in units],
        )
        await self._socket.send_bytes(b"".join(pictures))

    async def _tell(self, **said: Any) -> None:
        await self._socket.send_json(said)


def codec_of(video: bytes) -> str:
    """How browsers name the H.264 profile and level of an Annex B stream, for example `avc1.42c00d` (RFC 6381, 3.3)."""
    for unit in access_units(video):
        for nal in unit.nals:
            if nal.kind == SPS:
                return f"avc1.{nal.payload[1:4].hex()}"
    raise InvalidInput("video", "holds no sequence parameter set")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput("message", "is not JSON") from error
