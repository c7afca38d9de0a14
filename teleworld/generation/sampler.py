"""Sampling one group of latents from noise (REFERENCE: Self-Forcing, Wan2.1).

How is part of a checkpoint: a distilled network takes a few steps with fresh noise between them and no guidance; an
undistilled one is integrated by Euler or UniPC with classifier-free guidance, which runs the network twice a step, under
the prompt and under a negative one. The two see context of their own: clean latents attend to the prompt too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from teleworld.generation.noise import noise
from teleworld.generation.solvers import SCHEDULES, Method, make_solver
from teleworld.models.dit import DiT, KVCache
from teleworld.world.errors import InvalidInput

# What Wan2.1 is published with: saturated colours, still pictures, subtitles, paintings, worst quality, deformed limbs, ...
WAN_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)


@dataclass(frozen=True)
class Sampling:
    """How groups are sampled; part of a checkpoint.

    steps: of the solver. shift: of the noise levels towards the noisy end. method: few_step for distilled networks, euler or
    unipc for the others. guidance_scale: w of u + w (c - u), u under `negative_prompt`; 1 samples under the prompt alone.
    """

    steps: int = 4
    shift: float = 1.0
    method: Method = Method.FEW_STEP
    guidance_scale: float = 1.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InvalidInput("sampling.steps", "must be at least 1")
        if self.shift <= 0:
            raise InvalidInput("sampling.shift", "must be positive")

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels, from 1 down."""
        return SCHEDULES[self.method](self.steps, self.shift)

    @property
    def guided(self) -> bool:
        """Whether each step runs the network under the negative prompt too."""
        return self.guidance_scale != 1


# Self-Forcing and kin: distilled to four steps. Wan2.1: 50 steps of UniPC; the public settings for 480p video.
SELF_FORCING = Sampling(steps=4, shift=5.0)
WAN_UNDISTILLED = Sampling(
    steps=50, shift=5.0, method=Method.UNIPC, guidance_scale=5.0, negative_prompt=WAN_NEGATIVE_PROMPT
)


# What a model folder may call by name.
PRESETS = {"self_forcing": SELF_FORCING, "wan": WAN_UNDISTILLED}


@dataclass(frozen=True, eq=False)
class Branch:
    """What a network sees while it denoises a group: a prompt, and the clean latents and guidance read under that prompt."""

    text: KVCache
    visible: KVCache | None


def sample_group(
    dit: DiT,
    indices: Sequence[int],
    *,
    sampling: Sampling,
    places: Sequence[tuple[int, int]],
    shape: tuple[int, int, int],
    branches: Sequence[Branch],
    guidance: Tensor | None,
    extra: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Clean latents [B, C, F, h, w] of the group `indices` of B segments.

    places: (world's seed, segment) of each. branches: the prompts' and, if sampling is guided, the negative prompt's.
    guidance: [B, C + 1, F, h, w]. extra: [B, extra_channels, F, h, w], see `DiT.predict_clean`. device: the network's. The
    latents between two steps are float32.
    """

    def fresh(step: int) -> Tensor:
        return torch.cat([noise(seed, segment, indices, step, shape) for seed, segment in places]).to(device)

    sigmas = sampling.sigmas
    solver = make_solver(sampling.method, sigmas, fresh)
    x = fresh(0)
    for number, sigma in enumerate(sigmas):
        level = torch.tensor([sigma], dtype=torch.float32, device=x.device)
        views = [
            dit.predict_clean(x, level, indices, branch.text, branch.visible, guidance, extra) for branch in branches
        ]
        clean = views[0] if len(views) == 1 else views[1] + sampling.guidance_scale * (views[0] - views[1])
        x = solver.step(number, x, clean)
    return x
