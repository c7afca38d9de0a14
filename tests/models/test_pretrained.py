"""One set of weights, published in several ways, is the same network each time; and nothing that does not fit gets in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from teleworld.models.checkpoint import save_safetensors, weights_digest
from teleworld.models.dit import DiT
from teleworld.models.naming import convert
from teleworld.models.placement import Placement, Precision
from teleworld.models.pretrained import load_network
from teleworld.models.stream_vae import WAN21_VAE, WanStreamVAE
from teleworld.world.errors import CheckpointError
from tests.wan_model import DIT, VAE

Weights = dict[str, Tensor]


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"dit": DiT(DIT), "vae": WanStreamVAE(VAE)}


def as_wan(weights: Weights) -> Weights:
    return weights


def as_diffusers(weights: Weights) -> Weights:
    return convert(weights, "diffusers")


def as_self_forcing(weights: Weights) -> Weights:
    """The averaged generator beside the one that is trained, each under `model.`."""
    noise = {f"generator.model.{name}": torch.randn_like(tensor) for name, tensor in weights.items()}
    return noise | {f"generator_ema.model._fsdp_wrapped_module.{name}": t for name, t in weights.items()}


def as_compiled(weights: Weights) -> Weights:
    return {
        f"model._orig_mod.{name.replace('blocks.0.', 'blocks.0._checkpoint_wrapped_module.')}": tensor
        for name, tensor in weights.items()
    }


PUBLISHED = [
    (as_wan, None),
    (as_diffusers, None),
    (as_self_forcing, "generator_ema"),
    (as_compiled, None),
]


def write(path: Path, weights: Weights, *, sharded: bool = False) -> Path:
    if not sharded:
        save_safetensors(path, weights)
        return path
    names = sorted(weights)
    parts = {f"{path.stem}-{number}.safetensors": names[number::3] for number in range(3)}
    for shard, held in parts.items():
        save_safetensors(path.with_name(shard), {name: weights[name] for name in held})
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(json.dumps({"weight_map": {name: shard for shard, held in parts.items() for name in held}}))
    return index


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize(("publish", "branch"), PUBLISHED)
@pytest.mark.parametrize("network", ["dit", "vae"])
def test_each_form_loads_as_what_it_is(tmp_path: Path, network: str, publish, branch: str | None, sharded: bool):
    original = networks()[network]
    file = write(tmp_path / "weights.safetensors", publish(original.state_dict()), sharded=sharded)
    loaded = load_network(network, file, branch=branch)
    assert weights_digest(loaded) == weights_digest(original)
    assert loaded.config == original.config, "read from names and shapes alone"
    assert not loaded.training and not any(p.requires_grad or p.is_meta for p in loaded.parameters())


def test_a_published_vae_keeps_its_normalisation(tmp_path: Path):
    file = write(tmp_path / "vae.safetensors", networks()["vae"].state_dict())
    assert load_network("vae", file).config.latent_mean == WAN21_VAE.latent_mean


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda w: w.pop("blocks.1.ffn.2.bias"), r"weights\.safetensors: .*missing blocks\.1\.ffn\.2\.bias \[128\]"),
        (lambda w: w.update({"blocks.1.ffn.9.bias": torch.zeros(3)}), r"unexpected blocks\.1\.ffn\.9\.bias \[3\]"),
        (lambda w: w.update({"head.head.bias": torch.zeros(3)}), r"head\.head\.bias is \[3\], expected \[64\]"),
        (
            lambda w: w.update({"head.head.bias": torch.zeros(64, dtype=torch.int64)}),
            r"head\.head\.bias is torch\.int64, expected torch\.float32",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, damage, problem: str):
    weights = networks()["dit"].state_dict()
    damage(weights)
    file = write(tmp_path / "weights.safetensors", weights)
    with pytest.raises(CheckpointError, match=problem):
        load_network("dit", file)


def test_what_the_caller_says_counts_more_than_what_shapes_tell(tmp_path: Path):
    """Two heads of 64 have the shapes of one head of 128."""
    file = write(tmp_path / "weights.safetensors", networks()["dit"].state_dict())
    assert (
        load_network("dit", file, config={"dim": 128, "ffn": 96, "heads": 2, "layers": 2, "text_dim": 32}).config.heads
        == 2
    )
    with pytest.raises(CheckpointError, match=r"dit\.config\.heads: "):
        load_network("dit", file, config={"dim": 128, "ffn": 96, "heads": "many", "layers": 2})
    narrow = write(tmp_path / "narrow.safetensors", DiT(replace(DIT, dim=96, heads=3)).state_dict())
    with pytest.raises(CheckpointError, match=r"dit\.config: narrow\.safetensors does not tell into how many heads"):
        load_network("dit", narrow)
    assert (
        load_network("dit", narrow, config={"dim": 96, "ffn": 96, "heads": 3, "layers": 2, "text_dim": 32}).config.heads
        == 3
    )
    with pytest.raises(CheckpointError, match=r"architecture: 'wan_vae' is no dit; known: .*wan_dit"):
        load_network("dit", file, architecture="wan_vae")


@torch.inference_mode()
@pytest.mark.parametrize("precision", [Precision.BFLOAT16, Precision.FLOAT8])
def test_a_network_in_less_precision_is_near_the_exact_one(tmp_path: Path, precision: Precision):
    file = write(tmp_path / "weights.safetensors", networks()["dit"].state_dict())
    placement = Placement(precision=precision)
    exact, rough = load_network("dit", file), load_network("dit", file, placement=placement)
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 2, 4, 4, generator=generator)
    text, level = torch.randn(1, 6, 32, generator=generator), torch.full((1, 2), 500.0)
    expected = exact(latents, level, (1, 2), exact.read_text(text))
    found = rough(placement.tensor(latents), level, (1, 2), rough.read_text(placement.tensor(text)))
    assert found.dtype == torch.bfloat16
    sigma = torch.tensor([0.9375])
    text_kv, seen = rough.read_text(placement.tensor(text)), placement.tensor(latents)
    clean = rough.predict_clean(latents, sigma, (1, 2), text_kv, None, None)
    exactly = latents - 0.9375 * rough(seen, torch.full((1, 2), 937.5), (1, 2), text_kv).float()
    assert clean.dtype == torch.float32 and torch.equal(clean, exactly), "the level is not rounded"
    difference = (found.float() - expected).norm() / expected.norm()
    assert 0 < difference < (0.02 if precision is Precision.BFLOAT16 else 0.1)
