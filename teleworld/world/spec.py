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
    super-resolution. latent_channels: C; a latent is [C, height / spatial_stride, width / spatial_stride].
    """

    name: str
    fps: float
    latents: int
    lens: Lens
    upscale: int
    latent_channels: int
    gait: Gait = field(default_factory=Gait)
    spatial_stride: int = 8

    def __post_init__(self) -> None:
        if self.lens.width % self.spatial_stride or self.lens.height % self.spatial_stride:
            raise InvalidInput("spec.lens", f"width and height must be multiples of {self.spatial_stride}")
        if self.fps <= 0 or min(self.latents, self.upscale, self.latent_channels) < 1:
            raise InvalidInput("spec", "frame rate, latents, upscale and channels must be positive")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """[C, h, w] of one latent."""
        return self.latent_channels, self.lens.height // self.spatial_stride, self.lens.width // self.spatial_stride

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
    latent_channels=80,
)


def _wan(name: str, width: int, height: int) -> WorldSpec:
    """The world of a Wan transformer: 16 frames/s, the paper's segment of ten latents, a lens of 75 degrees, shown doubled."""
    focal = width / 1.535
    return WorldSpec(name, 16.0, 10, Lens(width, height, focal, focal), 2, 16)


WAN = (_wan("wan-1.3b", 832, 480), _wan("wan-14b", 832, 480), _wan("wan-18b", 880, 480))


def _emulated(name: str, latents: int, width: int, height: int, channels: int = 16) -> WorldSpec:
    """The world of a model that is emulated: the Wan family's rate and latents, a lens of 75 degrees, no upscaling.

    Where a real model generates below `width` x `height` and upscales, its latents are smaller: the emulated mesh carries
    the most that it can be asked to.
    """
    focal = width / 1.535
    return WorldSpec(name, 16.0, latents, Lens(width, height, focal, focal), 1, channels)


EMULATED = tuple(
    _emulated(f"emulated-{size}{suffix}", latents, width, height)
    for size, width, height in (("18b", 1760, 960), ("14b", 832, 480), ("1.3b", 832, 480), ("tiny", 128, 80))
    for suffix, latents in (("", 10), ("-n21", 21))
)
SPECS = {spec.name: spec for spec in (NANO, *WAN, *EMULATED)}


def learn(spec: WorldSpec) -> WorldSpec:
    """Make a spec that a model folder or a worker tells of known to `spec_of` in this process. Raises InvalidInput if its
    name already means another."""
    if SPECS.setdefault(spec.name, spec) != spec:
        raise InvalidInput("model", f"{spec.name!r} already means another world")
    return spec


def is_emulated(model: str) -> bool:
    """Whether the workers of that model hold devices instead of computing."""
    return any(spec.name == model for spec in EMULATED)


def spec_of(model: str) -> WorldSpec:
    """The spec of a model; raises InvalidInput(`model`)."""
    try:
        return SPECS[model]
    except KeyError:
        raise InvalidInput("model", f"unknown model {model!r}; known: {', '.join(sorted(SPECS))}") from None
