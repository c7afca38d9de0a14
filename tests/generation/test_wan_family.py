"""The wan family is served by the same code as nano: a folder of public-format checkpoints walks, in every way of sampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from teleworld.generation.groups import Sample, generate_group
from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import Model, Sampling, load_model
from teleworld.generation.planner import Planner
from teleworld.generation.solvers import Method
from teleworld.generation.start_picture import start_picture
from teleworld.memory.embeddings import LocalEmbeddingCache
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.models.checkpoint import save_safetensors
from teleworld.models.placement import Placement, Precision
from teleworld.models.stream_vae import WAN22_VAE, WanStreamVAE
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.video.h264 import decode_chunk
from teleworld.world.controls import keys_per_frame, parse_script, schedule
from teleworld.world.errors import CheckpointError, InvalidInput
from teleworld.world.timeline import ChainMode, Group
from teleworld.world.work import EmbedRequest, Guidance, Prompt, TaskContext
from tests.wan_model import DIT, HEIGHT, TEXT_DIM, WIDTH, WORLD, write_wan_model

KEYS = schedule(keys_per_frame(parse_script("W*0.4s W+RIGHT*0.5s .*1s"), 16.0), 4)
PICTURED = replace(DIT, extra_channels=20, picture_dim=24)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wan")


@pytest.fixture(scope="module")
def wan(root: Path) -> Model:
    write_wan_model(root / "tiny-wan")
    return load_model("tiny-wan", root)


@pytest.fixture(scope="module")
def pictured(root: Path) -> Model:
    """An image-to-video folder, with a CLIP of one layer."""
    folder = write_wan_model(root / "tiny-i2v", dit=PICTURED)
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(5)
    CLIPVisionModel(config).save_pretrained(folder / "image_encoder", safe_serialization=True)
    return load_model("tiny-i2v", root)


async def walk(model: Model, chunks: int = 6) -> list[Chunk]:
    shape = (model.spec.lens.height, model.spec.lens.width, 3)
    picture = np.random.default_rng(3).integers(0, 255, shape, dtype=np.uint8)
    prompt = Planner(model).embed(EmbedRequest(model.digest, "a stone hall"))
    record = WorldRecord("w", model.spec.name, model.digest, 7, ChainMode.T_B, prompt, picture, 0.0, "r")
    async with InProcessEngine(model, Memory(LocalMemoryStore())) as engine:
        return [chunk async for chunk in engine.walk(record, KEYS, chunks)]


def plan(model: Model, prompt: str = "a stone hall", seed: int = 1) -> np.ndarray:
    """The planned latents of a segment behind a grey picture, without guidance to speak of."""
    channels, height, width = model.spec.latent_shape
    context = TaskContext("w", 1, 0, "plan-0", 1, seed, model.digest)
    timeline = model.spec.timeline(ChainMode.T_B)
    count = len(timeline.members(Group.PLAN))
    guidance = Guidance(
        timeline.members(Group.PLAN),
        np.zeros((4 * count, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((4 * count, HEIGHT, WIDTH), np.uint8),
        np.zeros((count, channels, height, width), np.float32),
        np.zeros((count, height, width), np.float32),
    )
    embedding = Planner(model).embed(EmbedRequest(model.digest, prompt)).embedding
    clean = np.random.default_rng(2).standard_normal((1, channels, height, width)).astype(np.float32)
    with torch.inference_mode():
        sample = Sample(context, clean, guidance, Prompt(prompt, embedding))
        return generate_group(model, timeline, Group.PLAN, [sample])[0]


async def test_a_folder_of_public_checkpoints_walks(wan: Model):
    chunks = await walk(wan)
    assert isinstance(wan.vae, WanStreamVAE) and wan.dit.config == DIT
    assert [chunk.index for chunk in chunks] == list(range(6)), "into the second segment"
    assert all(decode_chunk(chunk.video).shape == (chunk.frames, 2 * HEIGHT, 2 * WIDTH, 3) for chunk in chunks)
    again = await walk(wan)
    assert [chunk.latent_sha256 for chunk in chunks] == [chunk.latent_sha256 for chunk in again]


async def test_an_image_to_video_folder_walks_on_the_picture_it_is_given(pictured: Model):
    assert len(await walk(pictured, 4)) == 4
    prefixes = [prefix for prefix, _ in pictured.start_pictures]
    assert prefixes and all(prefix.shape == (1, 16, 1, 6, 8) for prefix in prefixes)


async def test_wan22s_latents_of_sixteen_pixels_walk_too(root: Path):
    lens = {"width": WIDTH, "height": 64, "fx": 55.0, "fy": 55.0}
    write_wan_model(
        root / "tiny-wan22",
        dit=replace(DIT, channels=48),
        vae=replace(WAN22_VAE, base_channels=8, decoder_channels=8),
        world={**WORLD, "lens": lens, "latent_channels": 48, "spatial_stride": 16},
        sampling="self_forcing",
    )
    model = load_model("tiny-wan22", root)
    assert model.spec.latent_shape == (48, 4, 4) and len(model.sampling.sigmas) == 4
    chunks = await walk(model, 4)
    assert decode_chunk(chunks[-1].video).shape == (4, 128, 128, 3)


@torch.inference_mode()
def test_an_image_to_video_network_sees_the_picture_then_grey(pictured: Model):
    prefix = torch.randn(1, 16, 1, 6, 8, generator=torch.Generator().manual_seed(3))
    found = start_picture(pictured, prefix, 6)
    assert found.extra.shape == (1, 20, 6, 6, 8)
    assert torch.equal(found.extra[:, :4, 0], torch.ones(1, 4, 6, 8)) and not found.extra[:, :4, 1:].any()
    assert torch.equal(found.extra[:, 4:, :1], prefix)
    still = pictured.vae.decode(prefix)
    grey = torch.cat([still, torch.zeros(1, 3, 20, HEIGHT, WIDTH)], dim=2)
    torch.testing.assert_close(found.extra[:, 4:, 1:], pictured.vae.encode(grey)[:, :, 1:])
    assert found.embedding is not None and found.embedding.shape == (1, 5, 24)
    assert torch.equal(found.embedding, pictured.picture_encoder.embed(still[:, :, 0]))
    assert start_picture(pictured, prefix, 6) is found


@pytest.mark.parametrize("method", [Method.EULER, Method.UNIPC])
def test_undistilled_checkpoints_are_guided_by_the_negative_prompt(wan: Model, method: Method):
    """w = 1 is the prompt alone; 0 the negative prompt alone; and what the folder holds of it need not be embedded."""
    at = lambda scale, negative="red door": wan.sampled(Sampling(3, 5.0, method, scale, negative))  # noqa: E731
    alone = plan(at(1.0))
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(plan(at(0.0)), plan(at(1.0), "red door"), atol=1e-5)
    strong = plan(at(5.0))
    assert np.abs(strong - alone).max() > 1e-3
    np.testing.assert_allclose(plan(at(5.0, "a stone hall")), alone, atol=1e-4)
    assert np.abs(plan(at(5.0, "hall hall")) - strong).max() > 1e-3


def test_the_negative_prompt_may_lie_in_the_folder(root: Path):
    folder = write_wan_model(
        root / "kept", sampling={"steps": 2, "method": "unipc", "guidance_scale": 4.0, "negative_prompt": "red"}
    )
    before = load_model("kept", root)
    digest, embedding = before.digest, before.text.embed("red")
    save_safetensors(folder / "negative_prompt.safetensors", {"embedding": embedding}, {"text": "red"})
    after = load_model("kept", root)
    assert after.digest != digest, "it decides what is generated"
    assert torch.equal(after.negative_prompt, embedding) and "text" not in after.__dict__, "no text encoder is loaded"
    np.testing.assert_array_equal(plan(before), plan(after))


def test_less_precision_is_another_model_with_other_results(root: Path, wan: Model):
    rough = load_model("tiny-wan", root, Placement(precision=Precision.BFLOAT16))
    assert rough.digest != wan.digest
    exact, found = plan(wan), plan(rough)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).mean() < 0.1 * np.abs(exact).mean()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ('{"world": {"fps": 16}}', r"model\.json: world\.latents"),
        ('{"networks": {"brain": {}}}', "model.json: networks: 'brain' is none of"),
        ('{"sampling": {"method": "magic"}}', r"model\.json: sampling\.method"),
        ('{"sampling": "magic"}', r"model\.json: sampling"),
        ("[1, 2]", "model.json"),
        ("{", "model.json"),
    ],
)
def test_a_damaged_description_is_refused_by_name(root: Path, tmp_path: Path, change: str, problem: str):
    (tmp_path / "model.json").write_text(change)
    with pytest.raises(CheckpointError, match=problem):
        load_model(tmp_path.name, tmp_path.parent)


@pytest.mark.parametrize("file", ["../elsewhere.safetensors", "/etc/passwd", "a//b.safetensors", "vae.pt"])
def test_files_outside_of_the_folder_or_pickled_are_refused(root: Path, tmp_path: Path, file: str):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.json").write_text(
        '{"world": {"fps": 16, "latents": 6, "lens": {"width": 64, "height": 48, "fx": 55, "fy": 55}, "upscale": 2, '
        f'"latent_channels": 16}}, "networks": {{"vae": {{"file": "{file}"}}}}}}'
    )
    model = load_model("mine", tmp_path)
    with pytest.raises(CheckpointError):
        model.vae  # noqa: B018


def test_networks_that_do_not_belong_together_are_refused(wan: Model, root: Path, tmp_path: Path):
    folder = write_wan_model(tmp_path / "other-stride")
    description = (folder / "model.json").read_text().replace('"upscale": 2', '"upscale": 4')
    (folder / "model.json").write_text(description)
    model = load_model("other-stride", tmp_path)
    with pytest.raises(CheckpointError, match=r"super_resolution\.scale: is 2, the world 'other-stride' needs 4"):
        model.super_resolution  # noqa: B018
    with pytest.raises(InvalidInput, match="already means another world"):
        load_model("tiny-wan", _renamed(folder, root, tmp_path))


def _renamed(folder: Path, root: Path, tmp_path: Path) -> Path:
    """A folder elsewhere that describes another world under the name `tiny-wan`."""
    (tmp_path / "second").mkdir()
    folder.rename(tmp_path / "second" / "tiny-wan")
    return tmp_path / "second"


def test_a_prompt_is_read_once(wan: Model, monkeypatch: pytest.MonkeyPatch):
    cache, asked, read = LocalEmbeddingCache(), [], wan.text.embed
    monkeypatch.setattr(wan.text, "embed", lambda text: asked.append(text) or read(text))
    first, again = (Planner(wan, cache).embed(EmbedRequest(wan.digest, "a red door")) for _ in range(2))
    Planner(wan, cache).embed(EmbedRequest(wan.digest, "a red hall"))
    assert asked == ["a red door", "a red hall"]
    np.testing.assert_array_equal(first.embedding, again.embedding)


def test_the_text_of_a_prompt_reaches_the_picture(wan: Model):
    assert Planner(wan).embed(EmbedRequest(wan.digest, "a hall")).embedding.shape == (3, TEXT_DIM)
    assert np.abs(plan(wan, "a hall") - plan(wan, "red door stone")).max() > 1e-4
