"""Checkpoints: only safetensors get in, whole and as announced, and what leaves is complete and reproducible."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from teleworld.models.checkpoint import (
    load_into,
    load_safetensors,
    resolve_checkpoint,
    save_safetensors,
    strip_prefixes,
    weights_digest,
)
from teleworld.models.tensorfile import MAX_HEADER_BYTES
from teleworld.world.errors import CheckpointError

TENSORS = {
    "w": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 4),
    "view": torch.arange(12.0).reshape(3, 4).T,
}


class Bomb:
    """Unpickling this creates the file whose path it carries."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_what_is_saved_is_loaded(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, TENSORS, {"steps": "10", "data": "MAP01 à MAP03"})
    tensors, metadata = load_safetensors(path, expected_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert metadata == {"steps": "10", "data": "MAP01 à MAP03"}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert load_file(path).keys() == TENSORS.keys()
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_equal_content_gives_equal_files(tmp_path: Path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    metadata = {str(key): "x" for key in range(20)}
    save_safetensors(one, TENSORS, metadata)
    save_safetensors(two, dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("tensors", "metadata", "problem"),
    [
        ({"c": torch.zeros(2, dtype=torch.complex64)}, {}, "c: safetensors has no dtype"),
        ({"w": torch.zeros(2)}, {"steps": 10}, "metadata must map text to text"),
        ({"__metadata__": torch.zeros(2)}, {}, "cannot be called"),
    ],
)
def test_a_failed_save_leaves_the_old_file(tmp_path: Path, tensors, metadata, problem: str):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, TENSORS)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=problem):
        save_safetensors(path, tensors, metadata)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_only_safetensors_are_written(tmp_path: Path):
    with pytest.raises(CheckpointError, match="saved as"):
        save_safetensors(tmp_path / "a.pt", TENSORS)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.bin", "model.ckpt", "MODEL.PT"])
def test_pickles_are_refused_by_name(tmp_path: Path, name: str):
    path = tmp_path / name
    torch.save(TENSORS, path)
    with pytest.raises(CheckpointError, match="pickled checkpoints can run code"):
        load_safetensors(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_under_another_name_is_refused_and_never_run(tmp_path: Path, protocol: int):
    trace = tmp_path / "trace"
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb(trace), protocol=protocol))
    with pytest.raises(CheckpointError, match="a pickle, which can run code"):
        load_safetensors(path)
    torch.save(Bomb(trace), path)
    with pytest.raises(CheckpointError, match="a PyTorch archive"):
        load_safetensors(path)
    assert not trace.exists()


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not safetensors: 0 bytes"),
        (b"GIF89a" + bytes(50), "not safetensors"),
        (header(b"{}", 1000), "cut off"),
        (header(b"{}", MAX_HEADER_BYTES + 1), "the header claims"),
        (header(b"{nonsense"), "damaged header"),
        (header(b'{"__metadata__":{"a":1}}'), "must map text to text"),
        (header(b'{"__metadata__":["a"]}'), "must map text to text"),
        (header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), "model.safetensors"),
        (header(b'{"a":' * 200_000 + b"1" + b"}" * 200_000), "damaged header"),
    ],
)
def test_damage_is_refused(tmp_path: Path, content: bytes, problem: str):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=problem):
        load_safetensors(path)


def test_a_header_length_that_looks_like_a_pickle_is_not_taken_for_one(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    text = b"{}".ljust(0x0480)  # its length begins with the bytes 0x80 0x04, as a pickle does
    path.write_bytes(header(text))
    assert load_safetensors(path) == ({}, {})


def test_a_wrong_digest_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_safetensors(path, TENSORS)
    with pytest.raises(CheckpointError, match=r"sha256 is .*, expected 0000"):
        load_safetensors(path, expected_sha256="0" * 64)


def test_a_missing_file_is_reported(tmp_path: Path):
    with pytest.raises(CheckpointError, match="No such file"):
        load_safetensors(tmp_path / "absent.safetensors")


def sharded(folder: Path, weight_map: dict[str, str]) -> Path:
    save_safetensors(folder / "m-1.safetensors", {"a": torch.ones(2)}, {"format": "pt"})
    save_safetensors(folder / "m-2.safetensors", {"b": torch.zeros(3)}, {"format": "pt"})
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": weight_map}))
    return index


def test_a_sharded_checkpoint_is_one(tmp_path: Path):
    index = sharded(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"})
    tensors, metadata = load_safetensors(index)
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {"a": [2], "b": [3]}
    assert metadata == {"format": "pt"}
    with pytest.raises(CheckpointError, match="a digest pins one file"):
        load_safetensors(index, expected_sha256="0" * 64)


@pytest.mark.parametrize(
    ("weight_map", "problem"),
    [
        ({"a": "../m-1.safetensors"}, "must stay inside"),
        ({"a": "/etc/m-1.safetensors"}, "must stay inside"),
        ({"a": "m-1.bin"}, "must end in .safetensors"),
        ({"a": "m-3.safetensors"}, "no such file"),
        ({"a": "m-1.safetensors", "b": "m-1.safetensors"}, "the shards lack b"),
        ({"a": 1}, "must map tensor names"),
    ],
)
def test_a_shard_index_cannot_lead_astray(tmp_path: Path, weight_map, problem: str):
    with pytest.raises(CheckpointError, match=problem):
        load_safetensors(sharded(tmp_path, weight_map))


def test_a_name_is_resolved_inside_the_root(tmp_path: Path):
    root = tmp_path / "root"
    (root / "nano").mkdir(parents=True)
    save_safetensors(root / "nano" / "dit.safetensors", TENSORS)
    assert resolve_checkpoint(root, "nano/dit.safetensors") == (root / "nano" / "dit.safetensors").resolve()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../outside.safetensors",
        "nano/../../outside.safetensors",
        "/outside.safetensors",
        "./a.safetensors",
        "nano//a.safetensors",
        "..\\outside.safetensors",
        "C:/a.safetensors",
        "a\0.safetensors",
        "link.safetensors",
        "links/outside.safetensors",
        "absent.safetensors",
        "folder.safetensors",
        "a.pt",
        "a.txt",
    ],
)
def test_names_that_leave_the_root_or_are_no_checkpoint_are_refused(tmp_path: Path, name: str):
    root = tmp_path / "root"
    (root / "folder.safetensors").mkdir(parents=True)
    save_safetensors(tmp_path / "outside.safetensors", TENSORS)
    (root / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (root / "links").symlink_to(tmp_path)
    with pytest.raises(CheckpointError):
        resolve_checkpoint(root, name)


def test_training_prefixes_are_stripped():
    one = torch.ones(1)
    tensors = {
        "model._fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.norm3.weight": one,
        "_orig_mod.model.head.modulation": one,
        "patch_embedding.weight": one,
    }
    assert set(strip_prefixes({f"generator.{name}": one for name in tensors})) == {
        "blocks.0.norm3.weight",
        "head.modulation",
        "patch_embedding.weight",
    }
    assert set(strip_prefixes(tensors)) == {"blocks.0.norm3.weight", "head.modulation", "patch_embedding.weight"}


def test_one_of_several_networks_is_chosen_by_name():
    tensors = {
        "generator.model.w": torch.zeros(1),
        "generator_ema.model.w": torch.ones(1),
        "critic.model.w": torch.full((1,), 2.0),
    }
    assert strip_prefixes(tensors, branch="generator_ema") == {"w": torch.ones(1)}
    assert strip_prefixes(tensors, branch="generator") == {"w": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="generator_ema, generator, critic: choose one"):
        strip_prefixes(tensors)
    with pytest.raises(CheckpointError, match="has no critic"):
        strip_prefixes({"generator.w": torch.zeros(1)}, branch="critic")
    with pytest.raises(CheckpointError, match="two tensors are called w"):
        strip_prefixes({"model.w": torch.zeros(1), "w": torch.zeros(1)})


def test_every_difference_is_named_at_once_and_nothing_is_changed():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = weights_digest(module)
    wrong = {"0.weight": torch.ones(3, 5), "0.bias": torch.ones(3), "1.weight": torch.ones(1, 3), "2.w": torch.ones(4)}
    with pytest.raises(CheckpointError) as caught:
        load_into(module, wrong, strict=True, source="a.safetensors")
    for part in ("a.safetensors", "0.weight is [3, 5], expected [3, 2]", "missing 1.bias [1]", "unexpected 2.w [4]"):
        assert part in str(caught.value)
    with pytest.raises(CheckpointError, match=r"0\.weight is"):
        load_into(module, wrong, strict=False)
    with pytest.raises(CheckpointError, match=r"0\.bias is torch.int64, expected torch.float32"):
        load_into(module, {"0.bias": torch.ones(3, dtype=torch.int64)}, strict=False)
    assert weights_digest(module) == before


def test_a_lenient_load_reports_what_it_left_out():
    module = nn.Linear(2, 3)
    report = load_into(module, {"bias": torch.ones(3), "scale": torch.ones(1)}, strict=False)
    assert (report.missing, report.unexpected) == (("weight",), ("scale",))
    assert torch.equal(module.bias, torch.ones(3))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_load_fills_the_module_in_its_own_dtype(device: str):
    module = nn.Linear(2, 3, device=device, dtype=torch.bfloat16)
    weight = torch.randn(3, 2)
    load_into(module, {"weight": weight, "bias": torch.zeros(3)}, strict=True)
    assert module.weight.dtype == torch.bfloat16
    assert torch.equal(module.weight, weight.bfloat16())
    assert module(torch.ones(1, 2, dtype=torch.bfloat16)).shape == (1, 3)


def test_the_digest_names_the_weights_and_nothing_else(tmp_path: Path):
    digest = weights_digest(TENSORS)
    assert weights_digest(dict(reversed(TENSORS.items()))) == digest
    save_safetensors(tmp_path / "a.safetensors", TENSORS, {"steps": "10"})
    assert weights_digest(load_safetensors(tmp_path / "a.safetensors")[0]) == digest
    assert weights_digest({"w": torch.zeros(2, 3)}) != weights_digest({"w": torch.zeros(3, 2)})
    assert weights_digest({"w": torch.zeros(4)}) != weights_digest({"v": torch.zeros(4)})
    assert weights_digest({"w": torch.zeros(4)}) != weights_digest({"w": torch.zeros(4, dtype=torch.int32)})
    module = nn.Linear(2, 2)
    assert weights_digest(module) == weights_digest(module.state_dict())
