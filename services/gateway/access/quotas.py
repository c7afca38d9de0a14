"""What tenants use, counted in Redis over all gateways: calls a minute, and worlds that are driven. Worlds that there are count
where they enter the index.

A driven world counts until its gateway says that it is over, or has not said anything for a lease's time.
"""

from __future__ import annotations

from services.gateway.access.callers import Caller, Quota
from services.gateway.scripts import PREFIX
from services.gateway.states import ANY_ROOM, Room
from services.gateway.store import Store
from teleworld.world.errors import Overloaded

# A bucket that holds a quarter of a minute's calls and fills steadily: {allowed, milliseconds until the next call}.
_CALL = """
local t = redis.call('TIME')
local now, rate = t[1] * 1000 + math.floor(t[2] / 1000), ARGV[1] / 60000
local size = math.max(1, ARGV[1] / 4)
local held = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = math.min(size, (tonumber(held[1]) or size) + rate * (now - (tonumber(held[2]) or now)))
local allowed = level >= 1
if allowed then level = level - 1 end
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', now)
redis.call('PEXPIRE', KEYS[1], 120000)
return {allowed and 1 or 0, math.ceil((1 - level) / rate)}
"""
# Driven worlds with their frame rates: {allowed, worlds, sum of frame rates}. A world that is there already is renewed.
_DRIVE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local fps, worlds, known = 0, 0, false
for _, world in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], world)
  redis.call('HDEL', KEYS[2], world)
end
for _, world in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if world == ARGV[1] then known = true else
    worlds = worlds + 1
    fps = fps + (tonumber(redis.call('HGET', KEYS[2], world)) or 0)
  end
end
local room = ARGV[4] == '' or worlds + 1 <= tonumber(ARGV[4])
local speed = ARGV[5] == '' or fps + ARGV[2] <= tonumber(ARGV[5])
local allowed = known or (room and speed)
if allowed then
  redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  redis.call('PEXPIRE', KEYS[1], 10 * ARGV[3])
  redis.call('PEXPIRE', KEYS[2], 10 * ARGV[3])
end
return {allowed and 1 or 0, worlds}
"""
BUSY_SECONDS = 5.0


class Quotas:
    """Counts against callers' quotas. Raises Overloaded, with a time to come back, when one is used up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._call = store.redis.register_script(_CALL)
        self._drive = store.redis.register_script(_DRIVE)

    async def call(self, caller: Caller) -> None:
        """One call of the API."""
        if (limit := caller.quota.calls_per_minute) is None:
            return
        allowed, wait_ms = await self._store.ask(self._call(keys=[self._key(caller, "calls")], args=[limit]))
        if not allowed:
            raise Overloaded(f"more than {limit} calls a minute", wait_ms / 1000)

    async def drive(self, caller: Caller, world: str, fps: float, seconds: float) -> None:
        """`world` is driven for `seconds` from now on; called again before they are over, it goes on."""
        quota = caller.quota
        if quota.streams is None and quota.fps is None:
            return
        limits = ["" if limit is None else limit for limit in (quota.streams, quota.fps)]
        allowed, others = await self._store.ask(
            self._drive(keys=self._driven(caller), args=[world, fps, round(1000 * seconds), *limits])
        )
        if not allowed:
            raise Overloaded(f"the quota of streams is used up by {others} others", BUSY_SECONDS)

    async def rest(self, caller: Caller, world: str) -> None:
        """`world` is not driven any more."""
        streams, rates = self._driven(caller)
        await self._store.ask(self._store.redis.zrem(streams, world))
        await self._store.ask(self._store.redis.hdel(rates, world))

    def _driven(self, caller: Caller) -> tuple[str, str]:
        return self._key(caller, "driven"), self._key(caller, "rates")

    @staticmethod
    def _key(caller: Caller, name: str) -> str:
        return f"{PREFIX}:quota:{{{caller.tenant}}}:{name}"


def room_of(quota: Quota, world_bytes: int) -> Room:
    """How many worlds a quota has room for, each of which may take up to `world_bytes` of the store."""
    bounds: list[tuple[int, str]] = []
    if quota.worlds is not None:
        bounds.append((quota.worlds, f"{quota.worlds} worlds"))
    if quota.memory_bytes is not None:
        bounds.append((quota.memory_bytes // world_bytes, f"{quota.memory_bytes} bytes"))
    if not bounds:
        return ANY_ROOM
    worlds, what = min(bounds)
    return Room(worlds, f"the quota of {what} is used up")
