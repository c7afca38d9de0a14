"""The index of worlds: which there are, in the order of birth, and how many a tenant has.

A new world enters before anything of it is written, and whether there is room for one more is asked in the same step: of two
that come at a time for one place, one is refused. So the index may name a world that is not there (not yet, not any more,
or deleted half-way); readers skip it. They also clean it away, but not as long as it may be on its way into the world.

The index lies outside of the worlds' hash tags; its two keys share a slot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio as aioredis

from services.gateway import metrics
from services.gateway.scripts import PREFIX
from services.gateway.states import Room
from teleworld.world.errors import Overloaded
from teleworld.world.identifiers import tenant_of

INDEX = f"{PREFIX}:worlds"
BIRTHS = f"{PREFIX}:births:{{{INDEX}}}"
BIRTH_MS = 120_000
"""How long a world that entered is left in the index without being there: far longer than the store's commands may take."""
FULL_SECONDS, QUOTA_SECONDS = 60.0, 5.0

# world, range of its tenant's ids, most of the tenant, most of all ('' for no bound), milliseconds of a birth or 0 to ask only:
# {0 room, 1 the tenant has enough, 2 the store has}
_ENTER = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  if ARGV[4] ~= '' and redis.call('ZLEXCOUNT', KEYS[1], ARGV[2], ARGV[3]) >= tonumber(ARGV[4]) then return 1 end
  if ARGV[5] ~= '' and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 2 end
end
if tonumber(ARGV[6]) > 0 then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  redis.call('ZADD', KEYS[2], now + ARGV[6], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return 0
"""
# worlds that are not there: how many of them were taken out
_CLEAN = """
local t = redis.call('TIME')
local now, gone = t[1] * 1000 + math.floor(t[2] / 1000), 0
for _, world in ipairs(ARGV) do
  if (tonumber(redis.call('ZSCORE', KEYS[2], world)) or 0) <= now then
    gone = gone + redis.call('ZREM', KEYS[1], world)
  end
end
return gone
"""


class Index:
    """`ask` awaits a command and raises Unavailable where there is no answer."""

    def __init__(self, redis: aioredis.Redis, ask: Callable[[Any], Awaitable[Any]]) -> None:
        self._redis = redis
        self._ask = ask
        self._enter = redis.register_script(_ENTER)
        self._clean = redis.register_script(_CLEAN)

    async def check(self, world: str, room: Room) -> None:
        """Raise Overloaded where `enter` would, so that no work is done in vain; only `enter` takes the place."""
        await self._run(world, room, 0)

    async def enter(self, world: str, room: Room) -> None:
        """Take a place for a world that is about to be written; one that is in the index has its own. Raises Overloaded."""
        await self._run(world, room, BIRTH_MS)

    async def settled(self, world: str) -> None:
        """A world that entered is there, whole."""
        await self._ask(self._redis.zrem(BIRTHS, world))

    async def leave(self, world: str) -> None:
        """A world is dropped."""
        await self._ask(self._redis.zrem(INDEX, world))
        await self.settled(world)

    async def clean(self, worlds: Sequence[bytes]) -> int:
        """Take worlds out that were seen not to be there; returns how many were not on their way."""
        return int(await self._ask(self._clean(keys=[INDEX, BIRTHS], args=list(worlds))))

    async def names(self, tenant: str, after: str, most: int) -> list[bytes]:
        """Up to `most` ids of a tenant in the order of birth, after the id `after`."""
        first, end = _range(tenant)
        low = f"({after}" if after else first
        found: list[bytes] = await self._ask(self._redis.zrangebylex(INDEX, low, end, start=0, num=most))
        return found

    async def _run(self, world: str, room: Room, birth_ms: int) -> None:
        bounds = ["" if bound is None else bound for bound in (room.worlds, room.total)]
        arguments = [world, *_range(tenant_of(world)), *bounds, birth_ms]
        full = await self._ask(self._enter(keys=[INDEX, BIRTHS], args=arguments))
        if full == 1:
            metrics.refused.add(1, {"reason": "quota"})
            raise Overloaded(room.refusal, QUOTA_SECONDS)
        if full:
            metrics.refused.add(1, {"reason": "worlds"})
            raise Overloaded(f"there are {room.total} worlds; delete some first", FULL_SECONDS)


def _range(tenant: str) -> tuple[str, str]:
    """Where the ids of a tenant lie in the index. Those of nobody have no dot, and no other id begins with `{tenant}.`."""
    return (f"[{tenant}.", f"({tenant}/") if tenant else ("-", "+")
