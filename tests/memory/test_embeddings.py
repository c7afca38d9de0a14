"""Prompt embeddings: kept by what they depend on, shared through a real Redis, and never in the way."""

from __future__ import annotations

import numpy as np
import pytest
import redis

from teleworld.memory.embeddings import EmbeddingCache, LocalEmbeddingCache, embedding_key
from teleworld.memory.redis_embeddings import RedisEmbeddingCache
from teleworld.world.errors import InvalidInput

VALUE = np.random.default_rng(0).standard_normal((7, 16)).astype(np.float32)


@pytest.fixture(params=["local", "redis"])
def cache(request: pytest.FixtureRequest, client: redis.Redis) -> EmbeddingCache:
    return LocalEmbeddingCache() if request.param == "local" else RedisEmbeddingCache(client)


def test_what_was_kept_comes_back_to_the_bit(cache: EmbeddingCache):
    key = embedding_key("umt5-512-abc", "a hall of stone")
    assert cache.get(key) is None or isinstance(cache, RedisEmbeddingCache)
    cache.put(key, VALUE)
    found = cache.get(key)
    assert found is not None and found.dtype == np.float32
    np.testing.assert_array_equal(found, VALUE)


def test_a_key_is_of_the_encoder_and_the_text_together():
    keys = {embedding_key(*pair) for pair in [("a", "bc"), ("ab", "c"), ("a", "b"), ("", "abc"), ("abc", "")]}
    assert len(keys) == 5 and all(len(key) == 64 for key in keys)


def test_the_local_one_forgets_what_was_not_asked_for():
    cache = LocalEmbeddingCache(capacity=2)
    cache.put("one", VALUE)
    cache.put("two", VALUE)
    cache.get("one")
    cache.put("three", VALUE)
    assert cache.get("two") is None and cache.get("one") is not None and cache.get("three") is not None


def test_planners_share_it_and_it_expires(client: redis.Redis):
    RedisEmbeddingCache(client, seconds=100).put("shared", VALUE)
    found = RedisEmbeddingCache(client, seconds=50).get("shared")
    assert found is not None and 0 < client.ttl("tw:embedding:shared") <= 50


@pytest.mark.parametrize(
    "document",
    [b"", b"\x93NUMPY", b"\x80\x04K\x01.", b"nonsense"],
)
def test_a_damaged_value_is_a_miss(client: redis.Redis, document: bytes):
    client.set("tw:embedding:damaged", document)
    assert RedisEmbeddingCache(client).get("damaged") is None


def test_another_shape_or_no_number_is_a_miss(client: redis.Redis):
    cache = RedisEmbeddingCache(client)
    for wrong in (np.zeros(3, np.float32), np.full((2, 2), np.nan, np.float32)):
        cache.put("wrong", wrong)
        assert cache.get("wrong") is None


def test_a_redis_that_is_away_is_a_miss():
    cache = RedisEmbeddingCache.from_url("redis://127.0.0.1:1/0")
    cache.put("any", VALUE)
    assert cache.get("any") is None
    with pytest.raises(InvalidInput, match="redis_url"):
        RedisEmbeddingCache.from_url("nonsense")
