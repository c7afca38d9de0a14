"""A connection on which nothing is said: a peer that hangs is found out in seconds, one that computes is not taken for it, and who
asks after a peer is not sent away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from teleworld.rpc import channels, health
from teleworld.world.errors import Unavailable
from tests.services.processes import Process, process

pytestmark = pytest.mark.asyncio

NOTICED_SECONDS = (channels.KEEPALIVE_MS + channels.KEEPALIVE_TIMEOUT_MS) / 1000
GRACE_SECONDS = 15.0
"""Of a busy machine. gRPC's own minute is far beyond both."""
PINGS, PING_SECONDS = 5, 1.1
"""More pings without a word than gRPC forgives, as close as a server of ours takes them."""
PATIENCE_SECONDS = 4.0
"""For the answer to such a ping."""


@asynccontextmanager
async def watched(options: channels.Options = (), *told: str) -> AsyncIterator[tuple[Process, grpc.aio.Channel]]:
    """A peer that serves, and a channel to it."""
    async with process("tests.rpc.peer", *told) as peer:
        await peer.heard("serving")
        async with channels.open_channel(peer.address, options) as channel:
            yield peer, channel


async def frozen_peer() -> float:
    """Seconds until who watches a peer hears that it stopped."""
    async with watched() as (peer, channel):
        watch = health.watch(channel, "")
        assert await anext(watch)
        peer.child.send_signal(signal.SIGSTOP)
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):
            await anext(watch)
        return asyncio.get_running_loop().time() - began


async def quiet_peer() -> None:
    """Pings, and nothing else, for as long as it takes a server to lose its patience."""
    async with watched(pings(PATIENCE_SECONDS)) as (_, channel):
        await nothing_heard(channel, PINGS * PING_SECONDS)


async def busy_peer() -> None:
    """Its process computes for longer than anybody waits for the answer to a ping."""
    async with watched(pings(PATIENCE_SECONDS), "20") as (_, channel):
        await nothing_heard(channel, PING_SECONDS + 2 * PATIENCE_SECONDS)


def pings(timeout: float) -> channels.Options:
    """Options of a channel that asks often, and waits for an answer for `timeout` seconds."""
    waits = ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    return (("grpc.keepalive_time_ms", int(1000 * PING_SECONDS)), *((name, int(1000 * timeout)) for name in waits))


async def nothing_heard(channel: grpc.aio.Channel, seconds: float) -> None:
    """The peer serves, and for `seconds` there is nothing else to hear, the end of the connection included."""
    watch = health.watch(channel, "")
    assert await anext(watch)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await anext(watch)
    assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_a_peer_that_hangs_is_noticed_and_one_that_is_silent_or_busy_is_kept() -> None:
    seconds, *_ = await asyncio.gather(frozen_peer(), quiet_peer(), busy_peer())
    assert seconds < NOTICED_SECONDS + GRACE_SECONDS
