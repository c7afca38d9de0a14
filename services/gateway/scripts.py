"""The Lua of the store: each script is one atomic step, and each write checks the lease's epoch in the same step.

All scripts take the same keys (see `KEYS`) and answer {status, value, ...}: status 0 is done, `MISSING` no such world,
`STALE` the epoch is not the lease's (value: the current one), `LOST` what the write follows was acknowledged but is not
there. A store that fails over without its last writes would otherwise get a log with a hole, and fill it with another past.
"""

from __future__ import annotations

PREFIX = "teleworld:gateway"
"""What every key of the gateways begins with."""

KEYS = ("record", "lease", "state", "bindings", "plans", "memory", "prompts", "prompt_uses", "chunks", "controls")
"""The keys of a world, in the order in which every script gets them."""

DONE, MISSING, STALE, FULL, LOST = 0, -1, -2, -3, -4

_PRELUDE = """
local record, lease, state, bindings, plans, memory, prompts, uses, chunks, controls = unpack(KEYS)
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
if redis.call('EXISTS', record) == 0 then return {-1, 0} end
local current = tonumber(redis.call('HGET', lease, 'epoch') or '0')
"""
_FENCE = (
    _PRELUDE
    + """
if current ~= tonumber(ARGV[1]) then return {-2, current} end
"""
)
# What a write brought into being goes when the record does, also if nobody renews the lease any more.
_EXPIRE = """
local rest = redis.call('PTTL', record)
for _, key in ipairs(KEYS) do
  if rest > 0 and redis.call('PTTL', key) == -1 then redis.call('PEXPIRE', key, rest) end
end
"""

# channel, milliseconds
ACQUIRE = (
    _PRELUDE
    + """
local epoch = redis.call('HINCRBY', lease, 'epoch', 1)
redis.call('HSET', lease, 'until', now_ms() + tonumber(ARGV[2]))
redis.call('PUBLISH', ARGV[1], 'epoch:' .. epoch)
"""
    + _EXPIRE
    + """
return {0, epoch}
"""
)

# epoch, milliseconds of the lease, milliseconds until the world expires
RENEW = (
    _FENCE
    + """
redis.call('HSET', lease, 'until', now_ms() + tonumber(ARGV[2]))
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
return {0, current}
"""
)

# epoch, milliseconds until the world expires
RELEASE = (
    _FENCE
    + """
redis.call('HSET', lease, 'until', 0)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
return {0, current}
"""
)

# epoch, segment, binding, revision, prompt digest, prompt, waiting controls, retention
BIND = (
    _FENCE
    + """
local segment, revision, keep = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[8])
local last = tonumber(redis.call('HGET', state, 'segment') or '-1')
if segment > last + 1 then return {-4, last} end
redis.call('HSET', bindings, segment, ARGV[3])
redis.call('HSETNX', prompts, ARGV[5], ARGV[6])
redis.call('ZADD', uses, 'GT', segment, ARGV[5])
redis.call('SET', controls, ARGV[7], 'KEEPTTL')
if segment > last then redis.call('HSET', state, 'segment', segment) end
redis.call('HDEL', bindings, segment - keep)
redis.call('HDEL', plans, segment - keep)
redis.call('HDEL', memory, revision - keep)
for _, digest in ipairs(redis.call('ZRANGEBYSCORE', uses, '-inf', segment - keep)) do
  redis.call('HDEL', prompts, digest)
  redis.call('ZREM', uses, digest)
end
"""
    + _EXPIRE
    + """
return {0, 0}
"""
)

# epoch, segment, plan
PLAN = (
    _FENCE
    + """
redis.call('HSET', plans, ARGV[2], ARGV[3])
"""
    + _EXPIRE
    + """
return {0, 0}
"""
)

# epoch, revision, memory, static points
MEMORY = (
    _FENCE
    + """
redis.call('HSET', memory, ARGV[2], ARGV[3])
redis.call('HSET', state, 'revision', ARGV[2], 'static_points', ARGV[4])
"""
    + _EXPIRE
    + """
return {0, 0}
"""
)

# epoch, index, chunk, most chunks, most bytes, channel. `head` is the number of the first chunk that is missing.
CHUNK = (
    _FENCE
    + """
local before = tonumber(redis.call('HGET', state, 'head') or '0')
if tonumber(ARGV[2]) > before then return {-4, before} end
local size = #ARGV[3] - redis.call('HSTRLEN', chunks, ARGV[2])
redis.call('HSET', chunks, ARGV[2], ARGV[3])
local bytes = redis.call('HINCRBY', state, 'bytes', size)
local head, oldest = before, tonumber(redis.call('HGET', state, 'oldest') or '0')
while redis.call('HEXISTS', chunks, head) == 1 do head = head + 1 end
while oldest < head - 1 and (head - oldest > tonumber(ARGV[4]) or bytes > tonumber(ARGV[5])) do
  bytes = redis.call('HINCRBY', state, 'bytes', -redis.call('HSTRLEN', chunks, oldest))
  redis.call('HDEL', chunks, oldest)
  oldest = oldest + 1
end
redis.call('HSET', state, 'head', head, 'oldest', oldest)
if head > before then redis.call('PUBLISH', ARGV[6], 'head:' .. head) end
"""
    + _EXPIRE
    + """
return {0, head}
"""
)

# epoch, chunks that were acknowledged
ACK = (
    _FENCE
    + """
local acked = tonumber(redis.call('HGET', state, 'acked') or '0')
if tonumber(ARGV[2]) > acked then redis.call('HSET', state, 'acked', ARGV[2]) end
return {0, 0}
"""
)

# epoch, control, most bytes of waiting controls
CONTROL = (
    _FENCE
    + """
if redis.call('STRLEN', controls) + #ARGV[2] > tonumber(ARGV[3]) then return {-3, 0} end
redis.call('APPEND', controls, ARGV[2])
"""
    + _EXPIRE
    + """
return {0, 0}
"""
)

# epoch, digest, prompt, text
PROMPT = (
    _FENCE
    + """
redis.call('HSETNX', prompts, ARGV[2], ARGV[3])
redis.call('ZADD', uses, 'GT', tonumber(redis.call('HGET', state, 'segment') or '-1') + 1, ARGV[2])
redis.call('HSET', state, 'prompt', ARGV[2], 'prompt_text', ARGV[4])
"""
    + _EXPIRE
    + """
return {0, 0}
"""
)

# record, milliseconds until it expires, the first chunk that is missing, memory revision or '', static points, then triples:
# a hash's place in KEYS, field, value
CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return {-2, 0} end
redis.call('DEL', unpack(KEYS))
local head, oldest, bytes = tonumber(ARGV[3]), nil, 0
for at = 6, #ARGV, 3 do
  redis.call('HSET', KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2])
  if tonumber(ARGV[at]) == 9 then
    bytes = bytes + #ARGV[at + 2]
    local index = tonumber(ARGV[at + 1])
    if not oldest or index < oldest then oldest = index end
  end
end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[3], 'revision', ARGV[4], 'static_points', ARGV[5]) end
if head > 0 then
  redis.call('HSET', KEYS[3], 'head', head, 'acked', head, 'oldest', oldest or head, 'bytes', bytes)
end
redis.call('SET', KEYS[1], ARGV[1])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[2]) end
return {0, 0}
"""

# channel
DELETE = (
    _PRELUDE
    + """
redis.call('DEL', unpack(KEYS))
redis.call('PUBLISH', ARGV[1], 'deleted:')
return {0, current}
"""
)
