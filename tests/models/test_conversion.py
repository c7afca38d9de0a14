"""Public files in, safetensors out: every wrapping is looked through, and nothing but tensors is ever built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from teleworld.models.checkpoint import load_metadata, load_safetensors, weights_digest
from teleworld.models.conversion import convert_checkpoint, default_target, identify, look
from teleworld.models.dit import DiT
from teleworld.models.naming import convert, detect_naming
from teleworld.models.pretrained import load_network
from teleworld.models.stream_vae import WanStreamVAE
from teleworld.models.stream_vae.tiny import TinyStreamVAE, TinyVAEConfig
from teleworld.world.errors import CheckpointError
from tests.wan_model import DIT, VAE

Weights = dict[str, Tensor]


class Bomb:
    """Unpickling this creates the file whose path it carries."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    return DiT(DIT)


def nested(weights: Weights) -> dict[str, object]:
    """As Self-Forcing's trainer saves: both generators by name, and where it was."""
    other = {f"model._fsdp_wrapped_module.{name}": torch.zeros_like(tensor) for name, tensor in weights.items()}
    return {"generator": other, "generator_ema": {f"model.{n}": t for n, t in weights.items()}, "step": 7, "lr": [1e-5]}


@pytest.mark.parametrize(
    ("wrap", "branch"),
    [
        (lambda weights: weights, None),
        (lambda weights: {"state_dict": weights, "epoch": 3}, None),
        (lambda weights: convert(weights, "diffusers"), None),
        (lambda weights: {"generator": {f"model._orig_mod.{n}": t for n, t in weights.items()}}, None),
        (nested, "generator_ema"),
    ],
    ids=["bare", "container", "diffusers", "one branch", "self-forcing"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_transformer_becomes_the_same_network(tmp_path: Path, dit: DiT, wrap, branch, zipped: bool):
    source, target = tmp_path / "model.pt", tmp_path / "dit.safetensors"
    torch.save(wrap(dit.state_dict()), source, _use_new_zipfile_serialization=zipped)
    identity = convert_checkpoint(source, target, branch=branch, naming="wan")
    assert identity.architecture == "wan_dit" and identity.parameters == sum(p.numel() for p in dit.parameters())
    metadata = load_metadata(target)
    assert metadata["architecture"] == "wan_dit" and json.loads(metadata["config"])["heads"] == 1
    assert weights_digest(load_network("dit", target)) == weights_digest(dit)


@pytest.mark.parametrize(
    "module", [WanStreamVAE(VAE), TinyStreamVAE(TinyVAEConfig(4, (8, 8, 8, 8), 4))], ids=["wan", "tiny"]
)
def test_vaes_are_known_too(tmp_path: Path, module: torch.nn.Module):
    source, target = tmp_path / "vae.pth", tmp_path / "vae.safetensors"
    torch.save(module.state_dict(), source)
    convert_checkpoint(source, target)
    loaded = load_network("vae", target)
    assert type(loaded) is type(module) and weights_digest(loaded) == weights_digest(module)


def test_names_and_dtype_can_be_chosen(tmp_path: Path, dit: DiT):
    source, target = tmp_path / "model.pt", tmp_path / "half.safetensors"
    torch.save(dit.state_dict(), source)
    convert_checkpoint(source, target, naming="diffusers", dtype="bfloat16", metadata={"made_from": "a test"})
    tensors, metadata = load_safetensors(target)
    assert detect_naming(tensors) == "diffusers" and metadata["made_from"] == "a test"
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert load_network("dit", target).config == DIT


def test_a_pickle_that_would_run_code_does_not(tmp_path: Path, dit: DiT):
    trace, source = tmp_path / "trace", tmp_path / "model.pt"
    torch.save({"generator": dit.state_dict(), "bomb": Bomb(trace)}, source)
    for action in (look, lambda path: convert_checkpoint(path, tmp_path / "out.safetensors")):
        with pytest.raises(CheckpointError, match=r"model\.pt: holds more than tensors"):
            action(source)
    assert not trace.exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 20, b"PK\x03\x04" + bytes(60)])
def test_damage_is_refused(tmp_path: Path, content: bytes):
    source = tmp_path / "model.pth"
    source.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pth: "):
        look(source)


def test_a_file_of_several_networks_must_be_told_which(tmp_path: Path, dit: DiT):
    source = tmp_path / "model.pt"
    torch.save(nested(dit.state_dict()), source)
    with pytest.raises(CheckpointError, match="branch: the file holds generator_ema, generator: choose one"):
        convert_checkpoint(source, tmp_path / "out.safetensors")
    content = look(source)
    assert content.others == ("step", "lr") and content.parameters == 2 * sum(p.numel() for p in dit.parameters())
    assert [(one.branch, one.architecture) for one in identify(content)] == [
        ("generator_ema", "wan_dit"),
        ("generator", "wan_dit"),
    ]


def test_a_network_with_a_hole_is_not_written(tmp_path: Path, dit: DiT):
    source, weights = tmp_path / "model.pt", dit.state_dict()
    del weights["blocks.0.self_attn.norm_k.weight"]
    torch.save(weights, source)
    with pytest.raises(CheckpointError, match=r"missing blocks\.0\.self_attn\.norm_k\.weight \[128\]"):
        convert_checkpoint(source, tmp_path / "out.safetensors")
    torch.save({"layers.0.weight": torch.zeros(3)}, source)
    with pytest.raises(CheckpointError, match="no known network"):
        convert_checkpoint(source, tmp_path / "out.safetensors")
    assert [one.architecture for one in identify(look(source))] == [None]


@pytest.mark.parametrize(
    ("name", "target"),
    [("a.pt", "a.safetensors"), ("b.c.pth", "b.c.safetensors"), ("d.safetensors.index.json", "d.safetensors")],
)
def test_where_a_conversion_goes(name: str, target: str):
    assert default_target(Path("x") / name) == Path("x") / target
