"""What the Stream-VAE loses, and what the rendered memory gives back to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import torch

from teleworld.evaluation.metrics import Figure, psnr, sharpness
from teleworld.evaluation.samples import Start
from teleworld.generation.model import Model
from teleworld.generation.pixels import to_frames, to_pixels
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.training.segments import FRAMES, Corruption, simulate


@torch.inference_mode()
def reconstruction(model: Model, starts: Sequence[Start]) -> dict[str, Figure | float]:
    """PSNR in dB of encode and decode without guidance, and the median milliseconds that a 4-frame chunk takes to decode."""
    quality, milliseconds = [], []
    for start in starts:
        pictures = np.concatenate([start.picture[None], start.episode.rgb[start.span]])[: 1 + FRAMES]
        latents = model.vae.encode(to_pixels(pictures))
        state, shown = model.vae.new_decoder_state(), []
        for index in range(latents.shape[2]):
            begun = time.perf_counter()
            shown.append(to_frames(model.vae.decode_chunk(latents[:, :, index : index + 1], state)))
            milliseconds.append(1000 * (time.perf_counter() - begun))
        quality.append(psnr(np.concatenate(shown)[1:], pictures[1:]))
    return {"psnr": Figure.of(quality), "ms_per_chunk": median(milliseconds)}


@torch.inference_mode()
def guided_gain(model: Model, starts: Sequence[Start]) -> dict[str, Figure]:
    """What guidance adds to decoding true latents: dB on covered pixels, and sharpness (share of the true gradient energy).

    The guidance is rendered from earlier frames of the recording, with the errors a memory has.
    """
    gain, sharper = [], []
    for number, start in enumerate(starts):
        random = np.random.default_rng(number)
        pictures = np.concatenate([start.picture[None], start.episode.rgb[start.span]])[: 1 + FRAMES]
        guidance, mask = simulate(start.episode, start.frame, random, Corruption(clean=0.0))
        guidance, mask = np.concatenate([guidance[:1] * 0, guidance]), np.concatenate([mask[:1] * 0, mask])
        hint = DecoderGuidance(to_pixels(guidance), torch.from_numpy(mask)[None, None].float() / 255)
        latents = model.vae.encode(to_pixels(pictures))
        plain, guided = (to_frames(model.vae.decode(latents, hints))[1:] for hints in (None, hint))
        covered, truth = mask[1:] > 0, pictures[1:]
        gain.append(psnr(guided, truth, covered) - psnr(plain, truth, covered))
        sharper.append(sharpness(guided, truth) - sharpness(plain, truth))
    return {"covered_db": Figure.of(gain), "sharpness": Figure.of(sharper)}
