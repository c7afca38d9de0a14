"""Prompts: cleaned, tokenised and embedded as Wan2.1's umT5 does, from safetensors alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, UMT5EncoderModel

from teleworld.models.text import UMT5Encoder, clean, open_text_encoder
from teleworld.world.errors import CheckpointError
from tests.wan_model import write_text_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text"
    torch.manual_seed(0)
    write_text_encoder(path, 16)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> UMT5Encoder:
    return UMT5Encoder(folder, 6)


def test_a_prompt_is_what_the_library_makes_of_it_without_its_padding(folder: Path, encoder: UMT5Encoder):
    """The public pipeline pads to the full length, masks, and puts zeros where the padding is: the rest must be ours."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    model = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    tokens = tokenizer("a stone hall", padding="max_length", max_length=6, return_tensors="pt")
    with torch.inference_mode():
        padded = model(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state[0]
    found = encoder.embed("a stone hall")
    assert found.shape == (4, 16) and found.dtype == torch.float32
    torch.testing.assert_close(found, padded[:4], rtol=1e-5, atol=1e-5)


def test_prompts_are_cut_to_the_length_and_an_empty_one_is_allowed(encoder: UMT5Encoder):
    assert encoder.embed("a hall " * 50).shape == (6, 16)
    assert encoder.embed("").shape == (1, 16)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("  a   stone\n hall ", "a stone hall"), ("red &amp;amp; door", "red & door"), ("&lt;b&gt;", "<b>"), ("", "")],
)
def test_prompts_are_cleaned(text: str, cleaned: str):
    assert clean(text) == cleaned


def test_a_mended_encoding_is_the_same_prompt(encoder: UMT5Encoder):
    assert torch.equal(encoder.embed("a “stone” hall"), encoder.embed("a â€œstoneâ€ hall"))


def test_other_weights_are_another_identity(folder: Path, encoder: UMT5Encoder, tmp_path: Path):
    torch.manual_seed(1)
    write_text_encoder(tmp_path / "text", 16)
    other = UMT5Encoder(tmp_path / "text", 6)
    assert len({encoder.identity, other.identity, UMT5Encoder(folder, 7).identity}) == 3
    assert UMT5Encoder(folder, 6).identity == encoder.identity


def test_pickled_weights_are_never_looked_at(folder: Path, tmp_path: Path):
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_bytes((folder / "text_encoder" / "config.json").read_bytes())
    (tmp_path / "text_encoder" / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(CheckpointError, match="has no safetensors file"):
        UMT5Encoder(tmp_path, 6)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        UMT5Encoder(tmp_path / "nowhere", 6)
    with pytest.raises(CheckpointError, match="'gpt' is none of minilm, umt5"):
        open_text_encoder("gpt", folder, 6)
