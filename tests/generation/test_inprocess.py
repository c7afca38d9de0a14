"""The loop in one process: what a world is depends on its record and its keys, and on nothing else."""

import numpy as np
import pytest

from teleworld.generation.inprocess import WORKERS, InProcessEngine
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.scheduling.tasks import Pool
from teleworld.video.h264 import decode_chunk
from teleworld.world.controls import keys_per_frame, parse_script, schedule
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt

KEYS = schedule(keys_per_frame(parse_script("W*0.5s W+RIGHT*0.7s LEFT*0.5s .*1s"), 17.5), 4)


def record(model, chain, seed=7):
    picture = np.random.default_rng(3).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    embedding = np.random.default_rng(4).standard_normal((32, 384)).astype(np.float32)
    return WorldRecord("w", "nano", model.digest, seed, chain, Prompt("a hall", embedding), picture, 0.0, "r")


async def walk(model, chain, chunks=9, populators=2, seed=7, **options) -> list[Chunk]:
    workers = dict(WORKERS) | {Pool.POPULATOR: populators}
    async with InProcessEngine(model, Memory(LocalMemoryStore()), workers) as engine:
        return [chunk async for chunk in engine.walk(record(model, chain, seed), KEYS, chunks, **options)]


def digests(chunks):
    return [chunk.latent_sha256 for chunk in chunks]


@pytest.mark.parametrize("chain", ChainMode)
async def test_latents_do_not_depend_on_the_number_of_workers(model, chain):
    alone, many = await walk(model, chain, populators=1), await walk(model, chain, populators=3)
    assert digests(alone) == digests(many)
    assert [chunk.video for chunk in alone] == [chunk.video for chunk in many]


async def test_seed_and_keys_make_the_world(model):
    first, again, other = [await walk(model, ChainMode.T_B, 5, seed=seed) for seed in (7, 7, 8)]
    assert digests(first) == digests(again)
    assert digests(first)[0] == digests(other)[0], "chunk 0 is the start picture"
    assert not set(digests(first)[1:]) & set(digests(other)[1:])


async def test_chunks_come_in_order_with_their_frames_and_cameras(model):
    chunks = await walk(model, ChainMode.T_C, 12)
    assert [chunk.index for chunk in chunks] == list(range(12))
    assert [chunk.first_frame for chunk in chunks] == [0, *range(1, 45, 4)]
    for chunk in chunks:
        assert decode_chunk(chunk.video).shape == (chunk.frames, 192, 320, 3)
        assert len(chunk.path) == chunk.frames
    yaw = [np.arctan2(p[0, 2], p[2, 2]) for chunk in chunks for p in chunk.path.camera_to_world]
    assert max(yaw) > 0.2 > yaw[-1], "the walk turns right, then left"
    sequences = [chunk.control_sequence for chunk in chunks]
    assert sequences == sorted(sequences) and sequences[-1] > 0


async def test_without_memory_the_guidance_is_another(model):
    on, off = await walk(model, ChainMode.T_B), await walk(model, ChainMode.T_B, remember=False)
    assert digests(on)[:4] == digests(off)[:4], "segment 0 has seen only one frame either way"
    assert digests(on)[7:] != digests(off)[7:]
