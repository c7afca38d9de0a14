"""Worlds in Redis: record, lease, log, last chunks. What is acknowledged here outlives every gateway.

All keys of one world share the hash tag {id}, so that a script may touch them together in a cluster; the index and
`request` (idempotency) lie outside of it. A write is one script: it is seen whole or not at all, and it is refused when
the lease has moved on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.gateway import codec, scripts
from services.gateway.index import Index
from services.gateway.pipeline import LARGE_BYTES, Pipeline
from services.gateway.scripts import PREFIX
from services.gateway.states import ANY_ROOM, Log, Retention, Room, State
from teleworld.runtime.controls import MAX_PENDING
from teleworld.runtime.records import Binding, Chunk, Memory, Plan, WorldRecord
from teleworld.world.controls import Control
from teleworld.world.errors import InvalidInput, NotFound, StaleEpoch, Unavailable
from teleworld.world.identifiers import tenant_of, world_name
from teleworld.world.work import Prompt

ANSWER_SECONDS = 10.0
LOST = "the store lost writes that it had acknowledged"
_DRIVER = DriverInfo()
_AWAY = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, ReadOnlyError)


def prompt_digest(prompt: Prompt) -> str:
    """What a stored prompt is found by."""
    return hashlib.sha256(codec.write_prompt(prompt)).hexdigest()


class Store:
    """A connection pool to one Redis. Raises Unavailable when it does not answer within a few seconds of trying."""

    def __init__(self, url: str, retention: Retention | None = None) -> None:
        self.retention = retention or Retention()
        self.redis = aioredis.Redis.from_url(
            url,
            # With a timeout of its own redis-py uses `asyncio.wait_for`, which loses cancellations on Python 3.11; see `ask`.
            socket_timeout=None,
            socket_connect_timeout=2.0,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 8),
            retry_on_error=list(_AWAY),
            # Each new connection would read the package's metadata again, a millisecond on the event loop.
            driver_info=_DRIVER,
        )
        self.url = url
        self.index = Index(self.redis, self.ask)
        self._pipeline = Pipeline(self.redis, ANSWER_SECONDS, _AWAY)
        self._scripts = {
            name: self.redis.register_script(getattr(scripts, name))
            for name in (
                "ACQUIRE", "RENEW", "RELEASE", "BIND", "PLAN", "MEMORY", "CHUNK", "ACK", "CONTROL", "PROMPT", "CREATE",
                "DELETE",
            )
        }  # fmt: skip

    async def ping(self) -> None:
        """Raise Unavailable unless the store answers."""
        await self.ask(self.redis.ping())

    async def close(self) -> None:
        """Close the connections, when what is under way is answered."""
        await self._pipeline.close()
        await self.redis.aclose()

    @staticmethod
    def channel(world: str) -> str:
        """Where what happens to a world is published: `epoch:N`, `deleted:`, `control:...`."""
        return f"{PREFIX}:events:{{{world}}}"

    @staticmethod
    def heads(world: str) -> str:
        """Where each new chunk is published, `head:N`: for spectators, since whoever drives the world knows."""
        return f"{PREFIX}:heads:{{{world}}}"

    # -- worlds -------------------------------------------------------------------------------------------------------

    async def reserve(self, tenant: str, request_id: str, world: str) -> str:
        """The world that belongs to a request: `world`, or the one that an equal request reserved before."""
        key = f"{PREFIX}:request:{tenant}:{request_id}"
        milliseconds = int(self.retention.request_seconds * 1000)
        known = await self.ask(self.redis.set(key, world, nx=True, get=True, px=milliseconds))
        return world if known is None else known.decode()

    async def create(
        self,
        record: WorldRecord,
        memory: Memory | None = None,
        chunks: Sequence[tuple[int, bytes]] = (),
        room: Room = ANY_ROOM,
    ) -> bool:
        """Write a new world, whole. A fork brings its first memory and the chunks it shares. False if it is there already.

        Raises Overloaded when `room` has none for it.
        """
        extra: list[Any] = ["", 0]
        if memory is not None:
            extra = [memory.revision, memory.static_points]
            extra += [1 + scripts.KEYS.index("memory"), memory.revision, codec.write_memory(memory)]
        for index, data in chunks:
            extra += [1 + scripts.KEYS.index("chunks"), index, data]
        head = record.first_chunk + 1 if record.fork else 0
        milliseconds = int(self.retention.world_seconds * 1000)
        await self.index.enter(record.world, room)
        status, _ = await self._run("CREATE", record.world, codec.write_record(record), milliseconds, head, *extra)
        await self.index.settled(record.world)
        return status == scripts.DONE

    async def find(self, world: str) -> WorldRecord | None:
        """The record, if there is one."""
        data = await self.ask(self.redis.get(self._key(world, "record")))
        return None if data is None else codec.read_record(data)

    async def record(self, world: str) -> WorldRecord:
        """The record. Raises NotFound."""
        record = await self.find(world)
        if record is None:
            raise NotFound(world_name(world))
        return record

    async def state(self, world: str) -> State:
        """Where the world is; the initial state if nothing was written."""
        pipe = self.redis.pipeline(transaction=True)
        pipe.hgetall(self._key(world, "state"))
        pipe.hgetall(self._key(world, "lease"))
        pipe.time()
        fields, lease, time = await self.ask(pipe.execute())
        numbers = {name: int(fields[name.encode()]) for name in _NUMBERS if name.encode() in fields}
        text = fields.get(b"prompt_text")
        return State(
            epoch=int(lease.get(b"epoch", 0)),
            leased=int(lease.get(b"until", 0)) > time[0] * 1000 + time[1] // 1000,
            **numbers,
            prompt=fields.get(b"prompt", b"").decode(),
            prompt_text=None if text is None else text.decode(),
        )

    async def page(self, tenant: str, after: str, size: int) -> tuple[list[WorldRecord], str]:
        """Up to `size` records of a tenant in the order of birth, after the id `after`, and the id to go on from, or none."""
        found = list[WorldRecord]()
        while True:
            names = await self.index.names(tenant, after, size + 1)
            for world in (name.decode() for name in names):
                if len(found) == size:
                    return found, after
                after = world
                if tenant_of(world) != tenant:
                    continue
                if (record := await self.find(world)) is None:
                    await self.index.clean([world.encode()])
                else:
                    found.append(record)
            if len(names) <= size:
                return found, ""

    async def sweep(self, size: int = 500) -> int:
        """Take worlds that are not there any more out of the index; returns how many."""
        after, swept = "", 0
        while names := await self.index.names("", after, size):
            async with self.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.exists(self._key(name.decode(), "record"))
                there = await self.ask(pipe.execute())
            if gone := [name for name, exists in zip(names, there, strict=True) if not exists]:
                swept += await self.index.clean(gone)
            after = names[-1].decode()
        return swept

    async def delete(self, record: WorldRecord) -> None:
        """Drop everything of a world, and tell whoever listens."""
        await self._run("DELETE", record.world, self.channel(record.world))
        await self.index.leave(record.world)
        if record.request_id:
            await self.ask(self.redis.delete(f"{PREFIX}:request:{record.tenant}:{record.request_id}"))

    # -- lease --------------------------------------------------------------------------------------------------------

    async def acquire(self, world: str, seconds: float) -> int:
        """Take the lease, from whomever holds it. Returns the new epoch."""
        status, epoch = await self._run("ACQUIRE", world, self.channel(world), int(seconds * 1000))
        self._check(world, 0, status, epoch)
        return int(epoch)

    async def renew(self, world: str, epoch: int, seconds: float) -> None:
        """Keep the lease for `seconds` more. Raises StaleEpoch or NotFound."""
        expiry = int(self.retention.world_seconds * 1000)
        await self._fenced("RENEW", world, epoch, int(seconds * 1000), expiry)

    async def release(self, world: str, epoch: int) -> None:
        """Give the lease back."""
        await self._fenced("RELEASE", world, epoch, int(self.retention.world_seconds * 1000))

    # -- log ----------------------------------------------------------------------------------------------------------

    async def bind(self, world: str, epoch: int, binding: Binding, waiting: tuple[Control, ...]) -> None:
        """Write a binding and the controls that wait behind it; what is beyond the retention is dropped."""
        prompt = codec.write_prompt(binding.prompt)
        digest = hashlib.sha256(prompt).hexdigest()
        data, kept = codec.write_binding(binding, digest), codec.write_controls(waiting)
        segment, revision, horizon = binding.segment, binding.revision, self.retention.segments
        await self._fenced("BIND", world, epoch, segment, data, revision, digest, prompt, kept, horizon)

    async def plan(self, world: str, epoch: int, plan: Plan) -> None:
        """Write a plan. A large one is encoded beside the event loop."""
        large = plan.keys.nbytes > LARGE_BYTES
        data = await asyncio.to_thread(codec.write_plan, plan) if large else codec.write_plan(plan)
        await self._fenced("PLAN", world, epoch, plan.segment, data)

    async def memory(self, world: str, epoch: int, memory: Memory) -> None:
        """Write what is known of a memory revision."""
        await self._fenced("MEMORY", world, epoch, memory.revision, codec.write_memory(memory), memory.static_points)

    async def control(self, world: str, epoch: int, control: Control) -> None:
        """Write a control that is not bound yet. Raises InvalidInput when too many wait."""
        limit = MAX_PENDING * codec.CONTROL_BYTES
        if await self._fenced("CONTROL", world, epoch, codec.write_controls((control,)), limit) == scripts.FULL:
            raise InvalidInput("control", f"more than {MAX_PENDING} controls are waiting")

    async def prompt(self, world: str, epoch: int, prompt: Prompt) -> None:
        """Write the prompt for the segments that are not bound yet."""
        await self._fenced("PROMPT", world, epoch, prompt_digest(prompt), codec.write_prompt(prompt), prompt.text)

    async def send_controls(self, world: str, controls: tuple[Control, ...]) -> bool:
        """Pass controls to whoever drives the world. False if nobody heard them."""
        message = b"control:" + codec.write_controls(controls)
        return bool(await self.ask(self.redis.publish(self.channel(world), message)))

    async def log(self, world: str, state: State, first_segment: int) -> Log:
        """The log from `first_segment` to the last bound one. For the holder of the lease: nobody else writes meanwhile."""
        segments = [str(segment) for segment in range(max(first_segment, 0), state.segment + 1)]
        pipe = self.redis.pipeline(transaction=True)
        for name in ("bindings", "plans"):
            if segments:
                pipe.hmget(self._key(world, name), segments)
        pipe.hgetall(self._key(world, "prompts"))
        pipe.get(self._key(world, "controls"))
        *stored, prompts, controls = await self.ask(pipe.execute())
        bindings, plans = stored or ([], [])
        known = _prompts(prompts)
        read = [codec.read_binding(data, known) for data in bindings if data is not None]
        # What a segment adds to the memory may be two revisions after the one that guides it: see re-anchoring.
        revisions = [str(binding.revision + further) for binding in read for further in range(3)]
        memory = await self.memories(world, sorted({*revisions, str(state.revision or 0)}))
        return Log(
            bindings={binding.segment: binding for binding in read},
            plans={plan.segment: plan for plan in map(codec.read_plan, filter(None, plans))},
            memory=memory,
            controls=codec.read_controls(controls or b""),
            prompt=known.get(state.prompt),
        )

    async def binding(self, world: str, segment: int) -> Binding | None:
        """One logged binding."""
        pipe = self.redis.pipeline(transaction=True)
        pipe.hget(self._key(world, "bindings"), str(segment))
        pipe.hgetall(self._key(world, "prompts"))
        data, prompts = await self.ask(pipe.execute())
        return None if data is None else codec.read_binding(data, _prompts(prompts))

    async def memories(self, world: str, revisions: Sequence[str]) -> dict[int, Memory]:
        """What is known of those revisions that are kept."""
        stored = await self.ask(self.redis.hmget(self._key(world, "memory"), list(revisions)))
        return {memory.revision: memory for memory in map(codec.read_memory, filter(None, stored))}

    # -- chunks -------------------------------------------------------------------------------------------------------

    async def put_chunk(self, world: str, epoch: int, chunk: Chunk) -> None:
        """Write a chunk; the oldest ones beyond the retention are dropped."""
        limits, data = self.retention, codec.write_chunk(chunk)
        heads = self.heads(world)
        await self._fenced("CHUNK", world, epoch, chunk.index, data, limits.chunks, limits.nbytes, heads)

    async def chunk(self, world: str, index: int) -> Chunk | None:
        """A stored chunk."""
        data = await self.ask(self.redis.hget(self._key(world, "chunks"), str(index)))
        return None if data is None else codec.read_chunk(data)

    async def raw_chunks(self, world: str, first: int, last: int) -> list[tuple[int, bytes]]:
        """The stored chunks from `first` to `last`, as they are stored."""
        numbers = list(range(first, last + 1))
        data = await self.ask(self.redis.hmget(self._key(world, "chunks"), [str(number) for number in numbers]))
        return [(number, chunk) for number, chunk in zip(numbers, data, strict=True) if chunk is not None]

    async def ack(self, world: str, epoch: int, chunks: int) -> None:
        """Note that the chunks before number `chunks` were acknowledged."""
        await self._fenced("ACK", world, epoch, chunks)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _key(self, world: str, name: str) -> str:
        return f"{PREFIX}:{{{world}}}:{name}"

    async def _run(self, name: str, world: str, *arguments: Any) -> tuple[int, int]:
        keys = [self._key(world, key) for key in scripts.KEYS]
        status, value = await self.ask(self._pipeline.run(self._scripts[name], keys, arguments))
        return int(status), int(value)

    async def _fenced(self, name: str, world: str, epoch: int, *arguments: Any) -> int:
        status, value = await self._run(name, world, epoch, *arguments)
        self._check(world, epoch, status, value)
        return status

    @staticmethod
    def _check(world: str, epoch: int, status: int, value: int) -> None:
        if status == scripts.MISSING:
            raise NotFound(world_name(world))
        if status == scripts.LOST or (status == scripts.STALE and value < epoch):
            raise Unavailable(LOST)
        if status == scripts.STALE:
            raise StaleEpoch(world_name(world), epoch, value)

    @staticmethod
    async def ask(command: Any) -> Any:
        """The answer of a command. Raises Unavailable when there is none."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await command
        except (*_AWAY, TimeoutError) as error:
            raise Unavailable("the store does not answer") from error
        except OutOfMemoryError as error:
            raise Unavailable("the store is full") from error
        except RedisError as error:
            raise Unavailable(f"the store refuses: {type(error).__name__}") from error


def _prompts(stored: dict[bytes, bytes]) -> dict[str, Prompt]:
    return {digest.decode(): codec.read_prompt(data) for digest, data in stored.items()}


_NUMBERS = ("head", "oldest", "acked", "segment", "revision", "static_points")
