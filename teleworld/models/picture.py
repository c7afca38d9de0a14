"""A start picture as an image-to-video network reads it: the CLIP vision encoder that Wan2.1 I2V was trained with.

Loaded through `transformers` (extra `wan`) from a folder in the diffusers layout, `image_encoder` of a public checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.text import safetensors_folder

# CLIP's own normalisation of RGB in [0, 1].
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class PictureEncoder:
    """Pictures to the penultimate hidden states of CLIP's vision tower."""

    def __init__(self, folder: Path) -> None:
        safetensors_folder("image_encoder", folder)
        from transformers import CLIPVisionModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        model = CLIPVisionModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        self._model = model.eval().requires_grad_(False)

    @torch.inference_mode()
    def embed(self, picture: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> float32 [B, P, D], one class token and one for each patch."""
        size = self._model.config.image_size
        pixels = (picture.float().cpu() + 1) / 2
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        mean, std = (pixels.new_tensor(values)[None, :, None, None] for values in (_MEAN, _STD))
        answer = self._model((pixels - mean) / std, output_hidden_states=True)
        return answer.hidden_states[-2]
