"""What the Stream-VAE loses, and what the rendered memory gives back to it."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
import torch

from teleworld.evaluation.metrics import psnr, sharpness
from teleworld.evaluation.samples import Start
from teleworld.generation.model import Model
from teleworld.generation.pixels import hint_from, to_frames, to_pixels
from teleworld.memory.fill import fill
from teleworld.training.segments import FRAMES, Corruption, simulate


def _pictures(start: Start) -> np.ndarray:
    """The start picture and the true frames of a segment behind it, uint8 [1 + FRAMES, H, W, 3]."""
    return np.concatenate([start.picture[None], start.episode.rgb[start.span]])[: 1 + FRAMES]


@torch.inference_mode()
def reconstruction(model: Model, start: Start) -> dict[str, float]:
    """`psnr`: dB of encode and decode without guidance."""
    pictures = _pictures(start)
    return {"psnr": psnr(to_frames(model.vae.decode(model.vae.encode(to_pixels(pictures))))[1:], pictures[1:])}


@torch.inference_mode()
def chunk_time(model: Model, start: Start, repeats: int = 4) -> dict[str, float]:
    """`ms`: median milliseconds to decode a chunk of four frames as the decoder service does, one after another."""
    latents = model.vae.encode(to_pixels(_pictures(start)))
    taken = []
    for _ in range(repeats):
        state = model.vae.new_decoder_state()
        for index in range(latents.shape[2]):
            begun = time.perf_counter()
            to_frames(model.vae.decode_chunk(latents[:, :, index : index + 1], state))
            if index:  # the start picture is one frame alone
                taken.append(1000 * (time.perf_counter() - begun))
    return {"ms": median(taken)}


@torch.inference_mode()
def guided_gain(model: Model, start: Start, seed: int) -> dict[str, float]:
    """What guidance adds to decoding true latents: `covered_db` on covered pixels, and `sharper`, in shares of the true
    gradient energy.

    The guidance is rendered from earlier frames of the recording, with the errors that a memory has, drawn from `seed`.
    """
    pictures = _pictures(start)
    guidance, mask = simulate(start.episode, start.frame, np.random.default_rng(seed), Corruption(clean=0.0))
    hint = hint_from(torch.from_numpy(fill(guidance, mask))).behind_still()
    latents = model.vae.encode(to_pixels(pictures))
    plain, guided = (to_frames(model.vae.decode(latents, hints))[1:] for hints in (None, hint))
    covered, truth = mask > 0, pictures[1:]
    return {
        "covered_db": psnr(guided, truth, covered) - psnr(plain, truth, covered),
        "sharper": sharpness(guided, truth) - sharpness(plain, truth),
    }
