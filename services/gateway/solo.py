"""A walk without a stream: somebody sends controls by unary calls and watches as a spectator, as browsers must.

Nobody acknowledges, so the walk is paced by the clock alone, as if a player at the world's frame rate had every chunk at once.
It ends when no control comes for a while, or when a stream takes the world over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.gateway.clock import now
from services.gateway.drive import Drive, limits_of
from services.gateway.endings import Reason
from services.gateway.playback import Playback
from teleworld.world.errors import TeleWorldError
from teleworld.world.timeline import Timeline

if TYPE_CHECKING:
    from services.gateway.worlds import Worlds


async def walk_alone(worlds: Worlds, world: str, opened: asyncio.Future[Drive]) -> None:
    """Drive `world` until it ends; `opened` gets the drive, or the error that kept it from opening."""
    try:
        async with worlds.driving(world) as drive:
            drive.start(limits_of(drive.record, realtime=True), None)
            opened.set_result(drive)
            await _follow(drive, worlds.settings.solo_idle_seconds)
    except TeleWorldError as error:
        if not opened.done():
            opened.set_exception(error)


async def _follow(drive: Drive, idle_seconds: float) -> None:
    index, playback = drive.acked, Playback(drive.acked, drive.record.spec.fps)
    while drive.ending is None:
        ring = drive.changed.next
        for chunk in range(index, drive.head):
            playback.sent(chunk, Timeline.chunk_frames(chunk))
        index = max(index, drive.head)
        playback.acked(index, now())
        drive.ack(index)
        drive.played(playback.played(now()))
        quiet = drive.heard + idle_seconds
        if now() >= quiet:
            drive.end(Reason.IDLE)
        await ring.wait(min(quiet, playback.due(now()) or quiet) - now())
