"""The decoder as a pipeline: chunks of several worlds at a time, with the pictures that each would have alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from teleworld.generation.decoder import LocalFrames
from teleworld.generation.model import Model
from teleworld.generation.stages import StageClock
from teleworld.world.latents import latent_digest
from teleworld.world.work import DecodeRequest, TaskContext

LATENTS, SECONDS = 4, 20.0


def chunk(model: Model, world: str, index: int) -> DecodeRequest:
    latents = np.random.default_rng(len(world)).standard_normal((LATENTS, *model.spec.latent_shape)).astype(np.float32)
    previous = latent_digest(latents[index - 2]) if index > 1 else ""
    context = TaskContext(world, 1, 0, f"D{index}", 0, 1, model.digest)
    return DecodeRequest(context, index - 1, index, latents[index - 1 : index], previous, None)


def film(model: Model, frames: LocalFrames, world: str) -> np.ndarray:
    return np.concatenate([frames.frames(chunk(model, world, index), StageClock()) for index in range(1, LATENTS + 1)])


def test_worlds_side_by_side_have_the_pictures_that_each_has_alone(model: Model):
    worlds = ["a", "bb", "ccc"]
    alone = [film(model, LocalFrames(model), world) for world in worlds]
    shared = LocalFrames(model)
    with ThreadPoolExecutor(len(worlds)) as threads:
        together = list(threads.map(lambda world: film(model, shared, world), worlds))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_chunk_is_decoded_while_another_one_is_upscaled(model: Model, monkeypatch: pytest.MonkeyPatch):
    """The first chunk's super-resolution waits until the second chunk is being decoded: without overlap it never is."""
    frames, decoding = LocalFrames(model), threading.Semaphore(0)
    decode, upscale = model.vae.decode_chunk, model.super_resolution.upscale_chunk

    def decode_chunk(*args):
        decoding.release()
        return decode(*args)

    def upscale_chunk(*args):
        assert decoding.acquire(timeout=SECONDS) and decoding.acquire(timeout=SECONDS), "nothing was decoded meanwhile"
        decoding.release(2)
        return upscale(*args)

    monkeypatch.setattr(model.vae, "decode_chunk", decode_chunk)
    monkeypatch.setattr(model.super_resolution, "upscale_chunk", upscale_chunk)
    with ThreadPoolExecutor(2) as threads:
        work = [threads.submit(frames.frames, chunk(model, world, 1), StageClock()) for world in ("a", "bb")]
        assert [len(each.result(2 * SECONDS)) for each in work] == [1, 1]
