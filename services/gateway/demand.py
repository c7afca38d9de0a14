"""How much work each pool has, over all gateways: what autoscaling looks at.

Every gateway tells its own queues to the store once a second; any of them answers for all. A gateway that fell silent counts
no more after a few seconds, by the store's clock.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping

from services.gateway.scripts import PREFIX
from services.gateway.store import Store
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import Unavailable

KEY = f"{PREFIX}:demand"
TELL_SECONDS = 1.0
STALE_MS = 5000
# Written with the store's time, so that no gateway's clock matters; what is stale is removed by whoever reads.
_TELL = """
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], (t[1] * 1000 + math.floor(t[2] / 1000)) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], 10 * ARGV[3])
"""
_READ = """
local t = redis.call('TIME')
local now, found = t[1] * 1000 + math.floor(t[2] / 1000), {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, told = string.match(all[i + 1], '^(%d+) (.*)$')
  if now - tonumber(at) > tonumber(ARGV[1]) then redis.call('HDEL', KEYS[1], all[i]) else table.insert(found, told) end
end
return found
"""
_log = logging.getLogger(__name__)


class Demand:
    """Waiting tasks by pool. `own` reads this gateway's queues; `identity` tells it from its replicas."""

    def __init__(self, store: Store, identity: str, own: Callable[[], Mapping[Pool, int]]) -> None:
        self._store = store
        self._identity = identity
        self._own = own
        self._tell = store.redis.register_script(_TELL)
        self._read = store.redis.register_script(_READ)

    async def run(self) -> None:
        """Tell for ever; while the store is away nothing is told."""
        while True:
            told = json.dumps({pool.value: count for pool, count in self._own().items()})
            try:
                await self._store.ask(self._tell(keys=[KEY], args=[self._identity, told, STALE_MS]))
            except Unavailable as error:
                _log.warning("demand cannot be told", extra={"reason": error.reason})
            await asyncio.sleep(TELL_SECONDS)

    async def total(self) -> dict[Pool, int]:
        """Waiting tasks by pool, of all gateways that told of late. Raises Unavailable."""
        told = [json.loads(one) for one in await self._store.ask(self._read(keys=[KEY], args=[STALE_MS]))]
        return {pool: sum(one.get(pool.value, 0) for one in told) for pool in Pool}
