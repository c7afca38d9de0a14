"""The steps of the Redis store that must happen at once, as Lua: compare epoch and revision, then write or read whole.

All keys of a world carry its hash tag, so each script touches one slot. Numbers stay below 2^53, where Lua's are exact.
The first value of an answer says how it went.
"""

from __future__ import annotations

HEAD, DELTAS, SNAPSHOTS, MOMENTS = "head", "deltas", "snapshots", "moments"

# KEYS: head deltas snapshots moments. ARGV: epoch, revision, digest and block of the delta, snapshot or '', horizon,
# moments kept, floor, time to live in ms or 0, revisions between snapshots, then a frame and a block for each moment.
APPEND = """
local head = redis.call('HMGET', KEYS[1], 'epoch', 'newest', 'oldest')
local epoch, revision = tonumber(ARGV[1]), tonumber(ARGV[2])
local newest, oldest = tonumber(head[2] or '-1'), tonumber(head[3] or '0')
if head[1] and epoch < tonumber(head[1]) then return {'STALE', head[1]} end
if revision > newest + 1 then return {'GAP', tostring(newest)} end
if revision <= newest then
  local old = redis.call('HGET', KEYS[2], ARGV[2])
  if not old then return {'BEYOND'} end
  if string.sub(old, 1, 32) ~= string.sub(ARGV[3], 1, 32) then return {'CONFLICT'} end
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
else
  redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'newest', ARGV[2], 'oldest', tostring(oldest))
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
  for i = 10, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
  if ARGV[4] ~= '' then
    local horizon, kept, every = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9])
    oldest = math.max(oldest, tonumber(ARGV[7]))
    redis.call('HSET', KEYS[1], 'oldest', tostring(oldest))
    redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
    for _, at in ipairs(redis.call('HKEYS', KEYS[3])) do
      local n = tonumber(at)
      local lasting = n == oldest or (n > oldest and n % horizon == 0)
      if n + every < revision and not lasting then redis.call('HDEL', KEYS[3], at) end
    end
    for _, at in ipairs(redis.call('HKEYS', KEYS[2])) do
      if tonumber(at) < oldest then redis.call('HDEL', KEYS[2], at) end
    end
    local frames = redis.call('HKEYS', KEYS[4])
    table.sort(frames, function(a, b) return tonumber(a) < tonumber(b) end)
    for i = 1, #frames - kept do redis.call('HDEL', KEYS[4], frames[i]) end
  end
end
if tonumber(ARGV[8]) > 0 then
  for i = 1, 4 do redis.call('PEXPIRE', KEYS[i], ARGV[8]) end
end
return {'OK'}
"""

# KEYS: head deltas snapshots. ARGV: revision or ''. Answers the snapshot's revision (-1: none), it, and the deltas after it.
LOAD = """
local head = redis.call('HMGET', KEYS[1], 'newest', 'oldest')
if not head[1] then return {'NONE'} end
local newest, oldest = tonumber(head[1]), tonumber(head[2])
local wanted = newest
if ARGV[1] ~= '' then wanted = tonumber(ARGV[1]) end
if wanted < 0 or wanted > newest then return {'AHEAD'} end
if wanted < oldest then return {'BEYOND'} end
local base = -1
for _, at in ipairs(redis.call('HKEYS', KEYS[3])) do
  local n = tonumber(at)
  if n <= wanted and n > base then base = n end
end
local answer = {'OK', tostring(base), base >= 0 and redis.call('HGET', KEYS[3], tostring(base)) or ''}
for at = base + 1, wanted do
  local block = redis.call('HGET', KEYS[2], tostring(at))
  if not block then return {'LOST', tostring(at)} end
  answer[#answer + 1] = string.sub(block, 33)
end
return answer
"""

# KEYS: head moments. ARGV: frame. Answers the newest moment at or before it.
MOMENT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'NONE'} end
local found, wanted = -1, tonumber(ARGV[1])
for _, at in ipairs(redis.call('HKEYS', KEYS[2])) do
  local n = tonumber(at)
  if n <= wanted and n > found then found = n end
end
if found < 0 then return {'MISSING'} end
return {'OK', tostring(found), redis.call('HGET', KEYS[2], tostring(found))}
"""

# KEYS: head snapshots moments. ARGV: revision, origin, snapshot, time to live in ms or 0, then frames and blocks of moments.
FORK = """
local origin = redis.call('HGET', KEYS[1], 'origin')
if origin == ARGV[2] then return {'OK'} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'CONFLICT'} end
redis.call('HSET', KEYS[1], 'epoch', '0', 'newest', ARGV[1], 'oldest', ARGV[1], 'origin', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
if tonumber(ARGV[4]) > 0 then
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[4]) end
end
return {'OK'}
"""
