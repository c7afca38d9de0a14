"""Worlds that leave another one, and the memory as a file.

A fork is cut at a chunk: the last picture of that chunk, at generation size, is the fork's start picture, so that its first
prefix is that latent encoded afresh. Its memory is a copy of the revision that guided the chunk. The chunks that both share
are copied, so the source may be deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.gateway.states import ANY_ROOM, Room, State, View
from services.gateway.worlds import CALL_SECONDS, EXPORT_SECONDS, Worlds
from teleworld.runtime.records import Chunk, Fork, WorldRecord
from teleworld.scheduling.tasks import Pool
from teleworld.video.h264 import decode_chunk
from teleworld.world.camera import Lens
from teleworld.world.errors import InvalidInput, Overloaded, PreconditionFailed, Unavailable
from teleworld.world.identifiers import check_request_id, new_world_id, tenant_of, world_name
from teleworld.world.timeline import Timeline
from teleworld.world.walker import Walker
from teleworld.world.work import Prompt


async def fork(worlds: Worlds, source: str, chunk: int, request_id: str = "", room: Room = ANY_ROOM) -> View:
    """A new world that shares the past of `source` up to `chunk`, or the one that an equal request made.

    Raises NotFound, InvalidInput for a chunk that is not made, PreconditionFailed for one beyond what is kept, and Overloaded.
    """
    if request_id:
        check_request_id(request_id)
    store, tenant = worlds.store, tenant_of(source)
    target = new_world_id(tenant)
    record, state = await store.record(source), await store.state(source)
    if request_id:
        target = await store.reserve(tenant, request_id, target)
        if (known := await worlds.find(target)) is not None:
            return known
    room = await worlds.check_room(target, room)
    _check_reach(record, state, chunk)
    walker, revision, prompt, picture = await _cut(worlds, record, chunk)
    memory = (await store.memories(source, [str(revision)])).get(revision)
    if memory is None:
        raise PreconditionFailed(f"the log of {world_name(source)} does not hold memory revision {revision}")
    await worlds.ask(Pool.RECONSTRUCTOR, lambda port: port.fork(source, revision, target, CALL_SECONDS))
    shared = await store.raw_chunks(source, state.oldest, chunk)
    made = WorldRecord(
        world=target,
        model=record.model,
        weights=record.weights,
        seed=record.seed,
        chain=record.chain,
        prompt=prompt,
        picture=picture,
        created=time.time(),
        request_id=request_id,
        tenant=tenant,
        fork=Fork(source, chunk, walker, revision, memory.scale),
        reanchor=record.reanchor,
        told=record.told,
    )
    try:
        await store.create(made, memory, shared, room)
    except Overloaded:  # another one took the last place meanwhile
        with suppress(Unavailable):
            await worlds.ask(Pool.RECONSTRUCTOR, lambda port: port.forget(target, CALL_SECONDS))
        raise
    return await worlds.view(target)


async def export(worlds: Worlds, world: str, dynamic_at_chunk: int | None) -> AsyncGenerator[bytes, None]:
    """The newest memory revision as a PLY file, in pieces, with the dynamic points of a chunk if one is named."""
    state = (await worlds.view(world)).state
    if state.revision is None:
        raise PreconditionFailed("the world has no memory yet")
    frame = None
    if dynamic_at_chunk is not None:
        if dynamic_at_chunk >= state.head:
            raise InvalidInput(
                "dynamic_at_chunk", f"chunk {dynamic_at_chunk} is not made; the next one is {state.head}"
            )
        frame = Timeline.first_frame(dynamic_at_chunk + 1) - 1
    _, port = worlds.roster.fleets.port(Pool.RECONSTRUCTOR)
    async for piece in port.export(world, state.revision, frame, EXPORT_SECONDS):
        yield piece


def _check_reach(record: WorldRecord, state: State, chunk: int) -> None:
    if chunk >= state.head:
        raise InvalidInput("chunk", f"chunk {chunk} is not made; the next one is {state.head}")
    if record.fork is not None and chunk < record.fork.chunk:
        raise PreconditionFailed(f"chunk {chunk} belongs to {world_name(record.fork.source)}: fork that world")
    if chunk < state.oldest:
        raise PreconditionFailed(
            f"chunk {chunk} is beyond the retention horizon; the oldest one kept is {state.oldest}"
        )


async def _cut(worlds: Worlds, record: WorldRecord, chunk: int) -> tuple[Walker, int, Prompt, NDArray[np.uint8]]:
    """Camera, memory revision, prompt and last picture of a chunk."""
    own = chunk - record.first_chunk
    if own == 0:
        return record.start, record.start_revision, record.prompt, record.picture
    stored = await worlds.store.chunk(record.world, chunk)
    binding = await worlds.store.binding(record.world, stored.segment) if stored else None
    if binding is None or stored is None:
        raise PreconditionFailed(f"chunk {chunk} is beyond the retention horizon")
    walker = binding.walkers[record.timeline.frames_of(stored.latent)[-1]]
    picture = await asyncio.to_thread(_last_picture, stored, record.spec.lens)
    return walker, binding.revision, binding.prompt, picture


def _last_picture(chunk: Chunk, lens: Lens) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] at generation size, averaged down."""
    last = Image.fromarray(decode_chunk(chunk.video)[-1])
    return np.asarray(last.resize((lens.width, lens.height), Image.Resampling.BOX)).copy()
