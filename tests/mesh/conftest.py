"""Real meshes: every service a process of its own, with tiny random networks and an embedded Redis."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.client import Chunk, Pace, WorldClient
from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import load_model
from teleworld.generation.planner import Planner
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.runtime.records import WorldRecord
from teleworld.video.pictures import load_picture
from teleworld.world.controls import keys_per_frame, parse_script, schedule
from teleworld.world.timeline import ChainMode
from teleworld.world.work import EmbedRequest
from tests.tiny_model import write_tiny_model

KEYS = schedule(keys_per_frame(parse_script("W*0.6s W+RIGHT*0.8s LEFT*0.6s S+A*0.5s .*2s"), 17.5), 4)
PROMPT = "a hall of stone"
SEED = 11
StartMesh = Callable[..., AbstractAsyncContextManager[LocalMesh]]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models."""
    return write_tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A start picture as a PNG file."""
    path = tmp_path_factory.mktemp("picture") / "start.png"
    noise = np.random.default_rng(5).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((320, 192), Image.Resampling.BICUBIC).save(path)
    return path.read_bytes()


@pytest.fixture
def start_mesh(checkpoint: Path, tmp_path: Path) -> StartMesh:
    """`async with start_mesh(populators=2) as mesh`; the logs of a failed test stay in its folder."""

    @asynccontextmanager
    async def start(**options: object) -> AsyncIterator[LocalMesh]:
        async with LocalMesh(MeshConfig(checkpoint=checkpoint, logs=tmp_path / "logs", **options)) as mesh:  # type: ignore[arg-type]
            yield mesh

    return start


async def walk_mesh(
    address: str, picture: bytes, chain: ChainMode, chunks: int, seen: Callable[[Chunk], None] = lambda chunk: None
) -> list[Chunk]:
    """The first chunks of a new world under `KEYS`, over the mesh."""
    result = []
    async with WorldClient(address) as client:
        world = await client.create_world(picture, prompt=PROMPT, seed=SEED, chain=chain)
        async with client.walk(world.name, pace=Pace.MAX, until=chunks - 1) as walk:
            for control in KEYS:
                walk.hold(control.keys, chunk=control.chunk)
            async for event in walk:
                if isinstance(event, Chunk):
                    result.append(event)
                    seen(event)
    return result


async def walk_in_process(checkpoint: Path, picture: bytes, chain: ChainMode, chunks: int) -> list[tuple[str, str]]:
    """`identity` of the same chunks without any service."""
    torch.set_num_threads(1)
    model = load_model("nano", checkpoint)
    record = WorldRecord(
        world="0" * 26,
        model="nano",
        weights=model.digest,
        seed=SEED,
        chain=chain,
        prompt=Planner(model).embed(EmbedRequest(model.digest, PROMPT)),
        picture=load_picture(picture, model.spec.lens.width, model.spec.lens.height),
        created=0.0,
        request_id="",
    )
    async with InProcessEngine(model, Memory(LocalMemoryStore())) as engine:
        return [
            (chunk.latent_sha256, hashlib.sha256(chunk.video).hexdigest())
            async for chunk in engine.walk(record, KEYS, chunks)
        ]


def identity(chunks: list[Chunk]) -> list[tuple[str, str]]:
    """What must not differ: digest of the latent, digest of the video."""
    return [(chunk.latent_sha256, hashlib.sha256(chunk.video).hexdigest()) for chunk in chunks]
