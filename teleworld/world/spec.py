"""What a gateway must know of a model to run its worlds: sizes, speeds and the layout of a segment. No weights, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from teleworld.world.camera import Lens, PitchModel
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Timeline
from teleworld.world.walker import Gait


@dataclass(frozen=True)
class WorldSpec:
    """A model family's world.

    fps: native frames a second. latents: N of a segment. lens: the camera at generation size. upscale: factor of the
    super-resolution. latent_channels: C; a latent is [C, height / 8, width / 8].
    """

    name: str
    fps: float
    latents: int
    lens: Lens
    upscale: int
    latent_channels: int
    gait: Gait = field(default_factory=Gait)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[C, h, w] of one latent."""
        return self.latent_channels, self.lens.height // 8, self.lens.width // 8

    @property
    def output_size(self) -> tuple[int, int]:
        """(width, height) of the video."""
        return self.lens.width * self.upscale, self.lens.height * self.upscale

    def timeline(self, chain: ChainMode) -> Timeline:
        """The layout of this model's segments."""
        return Timeline.of(self.latents, chain)


NANO = WorldSpec(
    name="nano",
    fps=17.5,
    latents=6,
    lens=Lens(width=160, height=96, fx=160 / 2.4, fy=80.0, pitch_model=PitchModel.SHIFT),
    upscale=2,
    latent_channels=48,
)
SPECS = {NANO.name: NANO}


def spec_of(model: str) -> WorldSpec:
    """The spec of a model; raises InvalidInput(`model`)."""
    try:
        return SPECS[model]
    except KeyError:
        raise InvalidInput("model", f"unknown model {model!r}; known: {', '.join(sorted(SPECS))}") from None
