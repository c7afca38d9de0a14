"""The decoder with its networks in a real Triton server: the pictures are those of the networks in this process, bit for
bit, through shared memory and inline, for worlds side by side; and state that is lost is found to be lost, and heals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from services.decoder.triton import TritonFrames
from teleworld.generation.decoder import Decoder, LocalFrames
from teleworld.generation.model import Model
from teleworld.generation.stages import StageClock
from teleworld.world.errors import InvalidInput, StateLost, Unavailable
from teleworld.world.latents import latent_digest
from teleworld.world.work import DecodeRequest, Guidance, TaskContext
from tests.triton.server import Triton

READY_S = 30.0
LATENTS = 4


def request(model: Model, index: int, *, world: str = "worlds/a", whole: bool = False, epoch: int = 1) -> DecodeRequest:
    """Latent `index` of a segment of `world`, alone or with all before it; guidance for latents 3 and 4."""
    noise = np.random.default_rng(len(world) + ord(world[-1]))
    width, height = model.spec.lens.width, model.spec.lens.height
    latents = noise.standard_normal((LATENTS, *model.spec.latent_shape)).astype(np.float32)
    guided = (3, 4)
    pixels = noise.integers(0, 256, (4 * len(guided), height, width, 3), np.uint8)
    mask = np.where(noise.random((4 * len(guided), height, width)) < 0.5, 0, 255).astype(np.uint8)
    known = np.zeros((len(guided), *model.spec.latent_shape), np.float32)
    guidance = Guidance(guided, pixels, mask, latents=known, coverage=known[:, 0])
    first = 1 if whole else index
    previous = latent_digest(latents[first - 2]) if first > 1 else ""
    context = TaskContext(world, epoch, 0, f"D{index}", 0, 1, model.digest)
    return DecodeRequest(context, index - 1, index, latents[first - 1 : index], previous, guidance)


@pytest.fixture(scope="module", params=[True, False], ids=["shared memory", "inline"])
def frames(model: Model, triton: Triton, request: pytest.FixtureRequest) -> Iterator[TritonFrames]:
    with closing(TritonFrames(triton.url, model, READY_S, shared_memory=request.param)) as made:
        assert made.shares_memory == request.param
        yield made


def made(source: TritonFrames | LocalFrames, asked: DecodeRequest) -> np.ndarray:
    return source.frames(asked, StageClock())


def test_pictures_are_those_of_this_process_for_worlds_side_by_side(model: Model, frames: TritonFrames):
    local = LocalFrames(model)
    for index in range(1, LATENTS + 1):
        for world in ("worlds/a", "worlds/b"):
            asked = request(model, index, world=world)
            there, here = made(frames, asked), made(local, asked)
            assert there.dtype == np.uint8 and there.shape[0] == (1 if index == 1 else 4)
            np.testing.assert_array_equal(there, here)


def test_a_repeated_request_is_not_applied_twice(model: Model, frames: TritonFrames):
    for index in (1, 2):
        first = made(frames, request(model, index))
    with pytest.raises(StateLost):
        made(frames, request(model, 2))
    np.testing.assert_array_equal(made(frames, request(model, 2, whole=True)), first)


@pytest.mark.parametrize(
    "changed", [{"epoch": 2}, {"world": "worlds/never-begun"}], ids=["another epoch", "unknown world"]
)
def test_a_stream_that_is_not_held_is_lost(model: Model, frames: TritonFrames, changed: dict):
    made(frames, request(model, 1))
    with pytest.raises(StateLost):
        made(frames, request(model, 2, **changed))


def test_a_world_that_rested_longest_is_forgotten_and_its_history_heals_it(model: Model, frames: TritonFrames):
    """The server holds two worlds."""
    worlds = ("worlds/a", "worlds/b", "worlds/c")
    for world in worlds:
        made(frames, request(model, 1, world=world))
    with pytest.raises(StateLost):
        made(frames, request(model, 2, world="worlds/a"))
    local = LocalFrames(model)
    asked = request(model, 3, world="worlds/a", whole=True)
    np.testing.assert_array_equal(made(frames, asked), made(local, asked))
    asked = request(model, 4, world="worlds/a")
    np.testing.assert_array_equal(made(frames, asked), made(local, asked))


def test_an_input_that_the_network_refuses_names_its_field(model: Model, frames: TritonFrames):
    asked = request(model, 1)
    with pytest.raises(InvalidInput, match="latents"):
        made(frames, replace(asked, latents=asked.latents[:, :-1]))


def test_a_decoder_that_leaves_ends_its_sequences(model: Model, triton: Triton):
    with closing(TritonFrames(triton.url, model, READY_S)) as leaving:
        made(leaving, request(model, 1))
    with closing(TritonFrames(triton.url, model, READY_S)) as other, pytest.raises(StateLost):
        made(other, request(model, 2))


def test_chunks_of_video_are_the_same(model: Model, frames: TritonFrames):
    there, here = Decoder(model, frames), Decoder(model)
    for index in (1, 2, 3):
        ours, theirs = (decoder.decode(request(model, index)) for decoder in (here, there))
        assert ours.video == theirs.video
    assert set(theirs.stage_ms) == {"triton", "encode"}


def test_other_weights_are_refused_before_anything_is_decoded(model: Model, triton: Triton):
    class Other(Model):
        digest = "0" * 64

    with pytest.raises(InvalidInput, match="triton_url: Triton serves weights"):
        TritonFrames(triton.url, Other(model.spec, model.file("vae").parent), READY_S)


def test_a_server_that_dies_and_comes_back_is_healed_by_the_history(model: Model, triton: Triton):
    """Last in this file: it restarts the server."""
    with closing(TritonFrames(triton.url, model, READY_S)) as frames:
        made(frames, request(model, 1))
        triton.kill()
        with pytest.raises(Unavailable):
            made(frames, request(model, 2))
        triton.start()
        triton.wait()
        with pytest.raises(StateLost):
            made(frames, request(model, 2))
        asked = request(model, 2, whole=True)
        np.testing.assert_array_equal(made(frames, asked), made(LocalFrames(model), asked))
