"""The pipeline by itself, against a real server: everybody gets their own answer, whatever happens to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, ResponseError

from services.gateway.pipeline import LARGE_BYTES, SLICE_BYTES, TOGETHER, Pipeline

ECHO = "return {KEYS[1], ARGV[1]}"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    """A client that tries a broken connection again."""
    retry = Retry(NoBackoff(), 3)
    client = aioredis.Redis.from_url(redis_url, retry=retry, retry_on_error=[RedisConnectionError])
    yield client
    await client.aclose()


@pytest.fixture
async def pipeline(client: aioredis.Redis) -> AsyncIterator[Pipeline]:
    """A pipeline over `client`."""
    pipeline = Pipeline(client, 5.0, (RedisConnectionError,))
    yield pipeline
    await pipeline.close()


@pytest.fixture
async def echo(client: aioredis.Redis) -> AsyncScript:
    """A script that the server does not know yet."""
    await client.script_flush()
    return client.register_script(ECHO)


async def test_everybody_gets_their_own_answer(pipeline: Pipeline, echo: AsyncScript) -> None:
    asked = [pipeline.run(echo, [f"key {n}"], [n]) for n in range(3 * TOGETHER)]
    assert await asyncio.gather(*asked) == [[b"key %d" % n, b"%d" % n] for n in range(3 * TOGETHER)]


async def test_all_share_one_connection(redis_url: str, echo: AsyncScript) -> None:
    async with aioredis.Redis.from_url(redis_url, max_connections=1) as only:
        pipeline = Pipeline(only, 5.0, ())
        asked = [pipeline.run(echo, ["key"], [n]) for n in range(3 * TOGETHER)]
        assert len(await asyncio.gather(*asked)) == 3 * TOGETHER
        await pipeline.close()


async def test_a_wrong_question_harms_nobody_else(
    pipeline: Pipeline, client: aioredis.Redis, echo: AsyncScript
) -> None:
    fails = client.register_script("return redis.call('INCR', KEYS[1], 'too many')")
    asked = [
        pipeline.run(echo, ["a"], ["1"]),
        pipeline.run(echo, ["b"], [object()]),
        pipeline.run(fails, ["c"], []),
        pipeline.run(echo, ["d"], [bytes(2 * LARGE_BYTES)]),
        pipeline.run(echo, ["e"], ["2"]),
    ]
    first, wrong, refused, large, last = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, last) == ([b"a", b"1"], [b"e", b"2"])
    assert isinstance(wrong, DataError)
    assert isinstance(refused, ResponseError)
    assert large == [b"d", bytes(2 * LARGE_BYTES)]


async def test_a_connection_that_breaks_is_made_again(
    pipeline: Pipeline, client: aioredis.Redis, echo: AsyncScript
) -> None:
    await pipeline.run(echo, ["a"], ["1"])
    await client.client_kill_filter(_type="normal", skipme=True)
    assert await pipeline.run(echo, ["a"], ["2"]) == [b"a", b"2"]


async def test_who_gives_up_does_not_disturb_the_others(pipeline: Pipeline, echo: AsyncScript) -> None:
    given_up = asyncio.create_task(pipeline.run(echo, ["a"], ["1"]))
    waits = asyncio.create_task(pipeline.run(echo, ["b"], ["2"]))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await waits == [b"b", b"2"]
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_what_is_under_way_at_the_end_is_answered(pipeline: Pipeline, echo: AsyncScript) -> None:
    asked = [asyncio.create_task(pipeline.run(echo, ["key"], [n])) for n in range(3)]
    await asyncio.sleep(0)
    await pipeline.close()
    assert await asyncio.gather(*asked) == [[b"key", b"%d" % n] for n in range(3)]


@pytest.mark.parametrize("size", [SLICE_BYTES, 3 * SLICE_BYTES + 1])
async def test_slices_are_one_argument_again(pipeline: Pipeline, echo: AsyncScript, size: int) -> None:
    sent = np.random.default_rng(size).bytes(size)
    assert await pipeline.run(echo, ["key"], [sent]) == [b"key", sent]
