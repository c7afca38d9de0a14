"""What each service of a model needs of memory, from its networks on the `meta` device and the timeline.

Weights are counted, not remembered; activations come from running one task without arithmetic; the KV cache and the latents
from the timeline's groups. What a GPU adds (context, kernels, fragmentation) is one stated reserve. Nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import torch
from torch import nn

from teleworld.models.dit import WAN_1_3B, WAN_14B, WAN_14B_I2V, WAN_18B, DiT, DiTConfig, KVCache
from teleworld.models.dit.kv_cache import LayerKV
from teleworld.models.geometry.vggt import VGGT, VGGT_1B
from teleworld.models.peak import peak_bytes
from teleworld.models.placement import Precision
from teleworld.models.stream_vae import WAN21_VAE, WanStreamVAE
from teleworld.models.super_resolution.flashvsr import FLASH_VSR, FlashVSR
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import WorldSpec, spec_of
from teleworld.world.timeline import ChainMode, Timeline

M = TypeVar("M", bound=nn.Module)
GIB = 2**30
PICTURE_TOKENS = 257  # of CLIP ViT-H/14 at 224 pixels: 16 x 16 patches and a class token
# An allowance for what is not counted: the CUDA context, kernels and their workspaces, fragmentation. Not measured here.
RESERVE = 2 * GIB
_BYTES = {Precision.FLOAT32: 4, Precision.BFLOAT16: 2, Precision.FLOAT8: 2}
_FLOAT32 = 4


@dataclass(frozen=True)
class Need:
    """What one service holds, in bytes. parameters: of all its networks together."""

    service: str
    parameters: int
    weights: int
    kv_cache: int
    activations: int
    latents: int

    @property
    def total(self) -> int:
        """All of it, and the reserve of a process."""
        return self.weights + self.kv_cache + self.activations + self.latents + RESERVE


@dataclass(frozen=True)
class Family:
    """The networks whose needs are counted."""

    dit: DiTConfig
    spec: WorldSpec


FAMILIES: Mapping[str, Family] = {
    "1.3b": Family(WAN_1_3B, spec_of("wan-1.3b")),
    "14b": Family(WAN_14B, spec_of("wan-14b")),
    "14b-i2v": Family(WAN_14B_I2V, spec_of("wan-14b")),
    "18b": Family(WAN_18B, spec_of("wan-18b")),
}


def needs_of(
    family: Family, *, precision: Precision, chain: ChainMode, guided: bool = False
) -> tuple[Need, Need, Need, Need]:
    """What planner, populator, reconstructor and decoder need. guided: classifier-free guidance, with two contexts."""
    spec, timeline = family.spec, family.spec.timeline(chain)
    dtype = torch.float32 if precision is Precision.FLOAT32 else torch.bfloat16
    dit = _on_meta(lambda: DiT(family.dit), dtype)
    vae = _vae(dtype)
    latent = torch.Size(spec.latent_shape).numel() * _FLOAT32
    segment = timeline.latents * latent
    plan, halves = timeline.groups[0], timeline.groups[1:] or timeline.groups[:1]
    transformer, decoding = weight_bytes(dit, precision), _decode_peak(spec, dtype)
    text = text_encoder_parameters()
    planner = Need(
        service="planner",
        parameters=_parameters(dit) + _parameters(vae) + text,
        weights=transformer + weight_bytes(vae, precision) + text * _BYTES[precision],
        kv_cache=kv_bytes(family.dit, spec, timeline, [plan], precision, guided=guided),
        activations=max(_group_peak(family.dit, spec, timeline, [plan], dtype, guided=guided), decoding),
        latents=segment,
    )
    populator = Need(
        service="populator",
        parameters=_parameters(dit),
        weights=transformer,
        kv_cache=kv_bytes(family.dit, spec, timeline, halves, precision, guided=guided),
        activations=_group_peak(family.dit, spec, timeline, halves, dtype, guided=guided),
        latents=segment,
    )
    geometry = _on_meta(lambda: VGGT(VGGT_1B), torch.float32)
    reconstructor = Need(
        service="reconstructor",
        parameters=_parameters(geometry) + _parameters(vae),
        weights=_parameters(geometry) * _FLOAT32 + weight_bytes(vae, precision),
        kv_cache=0,
        activations=max(
            _encode_peak(spec, len(timeline.used), dtype), _measure_peak(spec, len(timeline.key_frames) + 1)
        ),
        latents=len(timeline.used) * latent,
    )
    upscaler = _on_meta(lambda: FlashVSR(replace(FLASH_VSR, scale=spec.upscale)), dtype)
    decoder = Need(
        service="decoder",
        parameters=_parameters(vae) + _parameters(upscaler),
        weights=weight_bytes(vae, precision) + weight_bytes(upscaler, precision),
        kv_cache=_upscaler_cache(spec, precision),
        activations=max(decoding, _upscaler_peak(spec, dtype)),
        latents=segment,
    )
    return planner, populator, reconstructor, decoder


def weight_bytes(module: nn.Module, precision: Precision) -> int:
    """Bytes of the parameters; in float8 the linear layers of blocks take one byte a weight and four a row."""
    if precision is not Precision.FLOAT8:
        return _parameters(module) * _BYTES[precision]
    small = [
        layer.weight for block in getattr(module, "blocks", ()) for layer in block.modules() if type(layer) is nn.Linear
    ]
    eighth = sum(weight.numel() for weight in small)
    rows = sum(weight.shape[0] for weight in small)
    return (_parameters(module) - eighth) * _BYTES[precision] + eighth + rows * _FLOAT32


def kv_bytes(
    config: DiTConfig,
    spec: WorldSpec,
    timeline: Timeline,
    groups: Sequence[int],
    precision: Precision,
    *,
    guided: bool,
) -> int:
    """The largest KV cache of any of the groups: clean latents that it sees, its guidance, and the prompt."""
    tokens = tokens_of(config, spec)
    widest = 0
    for group in groups:
        latents = len(timeline.visible(group)) + (len(timeline.members(group)) if config.guidance_channels else 0)
        words = config.text_length + (PICTURE_TOKENS if config.picture_dim else 0)
        widest = max(widest, latents * tokens + words)
    return widest * config.layers * 2 * config.dim * _BYTES[precision] * (2 if guided else 1)


def tokens_of(config: DiTConfig, spec: WorldSpec) -> int:
    """Tokens of one latent."""
    _, height, width = spec.latent_shape
    return (height // config.patch[1]) * (width // config.patch[2])


@cache
def text_encoder_parameters() -> int:
    """The parameters of umT5-xxl's encoder."""
    try:
        from transformers import UMT5Config, UMT5EncoderModel
    except ImportError as error:
        raise InvalidInput("text", "counting umT5 needs the extra `wan`") from error

    with torch.device("meta"):
        return _parameters(
            UMT5EncoderModel(
                UMT5Config(vocab_size=256_384, d_model=4096, d_kv=64, d_ff=10_240, num_layers=24, num_heads=64)
            )
        )


def _group_peak(
    config: DiTConfig, spec: WorldSpec, timeline: Timeline, groups: Sequence[int], dtype: torch.dtype, *, guided: bool
) -> int:
    """Activations of one denoising step of the largest group, beside its cache."""
    group = max(groups, key=lambda number: len(timeline.members(number)) + len(timeline.visible(number)))
    indices = timeline.members(group)
    seen = len(timeline.visible(group)) + (len(indices) if config.guidance_channels else 0)
    _, height, width = spec.latent_shape
    peak = _step_peak(config, (len(indices), height, width), seen * tokens_of(config, spec), dtype)
    # The other branch's prediction waits while one is computed.
    waiting = config.channels * len(indices) * height * width * torch.empty((), dtype=dtype).element_size()
    return peak + (waiting if guided else 0)


def _step_peak(config: DiTConfig, grid: tuple[int, int, int], seen: int, dtype: torch.dtype) -> int:
    """Activations of one step of latents of a grid (F, h, w) that see `seen` cached tokens beside themselves.

    A block leaves nothing behind but its output, so two of them show the peak of any number.
    """
    config = replace(config, layers=2)
    dit = _on_meta(lambda: DiT(config), dtype)
    empty = lambda *shape: torch.empty(shape, device="meta", dtype=dtype)  # noqa: E731
    layer = LayerKV(*(empty(1, seen, config.heads, config.head_dim) for _ in range(2)))
    words, picture = empty(1, config.text_length, config.dim), empty(1, PICTURE_TOKENS, config.dim)
    prompt = KVCache(
        tuple(block.cross_attn.context(words, picture if config.picture_dim else None) for block in dit.layers)
    )
    noisy, level = empty(1, config.channels, *grid), torch.full((1, grid[0]), 500.0, device="meta")
    visible = KVCache((layer,) * config.layers)
    return peak_bytes(dit, lambda: dit(noisy, level, range(1, grid[0] + 1), prompt, visible))


def _upscaler_cache(spec: WorldSpec, precision: Precision) -> int:
    """The windows of two latents that super-resolution keeps, at the size that is shown."""
    config, (width, height) = FLASH_VSR.dit, spec.output_size
    tokens = FLASH_VSR.kv_windows * 2 * (height // 16) * (width // 16)
    return tokens * config.layers * 2 * config.dim * _BYTES[precision]


@cache
def _upscaler_peak(spec: WorldSpec, dtype: torch.dtype) -> int:
    """Its transformer's first step, the largest; which tokens see each other depends on values, so all of them do here."""
    width, height = spec.output_size
    return _step_peak(FLASH_VSR.dit, (FLASH_VSR.first_latents, height // 16 * 2, width // 16 * 2), 0, dtype)


@cache
def _decode_peak(spec: WorldSpec, dtype: torch.dtype) -> int:
    """Decoding latent after latent, and the stream's state; the third call is like all later ones."""
    vae = _vae(dtype)
    latent = torch.empty(1, vae.latent_channels, 1, *spec.latent_shape[1:], device="meta", dtype=dtype)

    def decode() -> None:
        state = vae.new_decoder_state()
        for _ in range(3):
            vae.decode_chunk(latent, state)

    return peak_bytes(vae, decode)


@cache
def _encode_peak(spec: WorldSpec, latents: int, dtype: torch.dtype) -> int:
    """Encoding the guidance of `latents` latents at once."""
    vae, height, width = _vae(dtype), spec.lens.height, spec.lens.width
    pixels = lambda frames: torch.empty(1, 3, frames, height, width, device="meta", dtype=dtype)  # noqa: E731

    def encode() -> None:
        state = vae.new_encoder_state()
        vae.encode_chunk(pixels(1), state)
        vae.encode_chunk(pixels(vae.temporal_stride * latents), state)

    return peak_bytes(vae, encode)


@cache
def _measure_peak(spec: WorldSpec, frames: int) -> int:
    """Measuring that many frames at the network's own size; the second pass holds what the first one found."""
    geometry, config = _on_meta(lambda: VGGT(VGGT_1B), torch.float32), VGGT_1B
    rows, columns = (
        round(config.encoder.image * side / max(spec.lens.width, spec.lens.height) / config.patch)
        for side in (spec.lens.height, spec.lens.width)
    )
    size = rows * config.patch, columns * config.patch
    pictures = torch.empty(1, frames, 3, *size, device="meta")

    def measure() -> object:
        features = geometry.encode(pictures)
        return geometry(features, (rows, columns)), geometry(features, (rows, columns), salient=False)

    return peak_bytes(geometry, measure)


def _vae(dtype: torch.dtype) -> WanStreamVAE:
    return _on_meta(lambda: WanStreamVAE(WAN21_VAE), dtype)


def _on_meta(build: Callable[[], M], dtype: torch.dtype) -> M:
    with torch.device("meta"):
        return build().to(dtype).eval()


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assign(needs: Sequence[Need], gpus: int) -> list[list[Need]]:
    """The services of each GPU: the largest first, each to the GPU that holds the least so far."""
    if gpus < 1:
        raise InvalidInput("gpus", "at least one is needed")
    places: list[list[Need]] = [[] for _ in range(gpus)]
    for need in sorted(needs, key=lambda one: -one.total):
        min(places, key=lambda held: sum(one.total for one in held)).append(need)
    return places
