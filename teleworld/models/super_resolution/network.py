"""Streaming super-resolution: each decoded chunk enlarged as it becomes available (paper 3.6.3).

The picture is the bicubic enlargement of the low-resolution frame plus a residual. Convolutions on a half-resolution
feature grid carry the detail; locality-constrained sparse attention on a coarse token grid brings in what the last
frames showed; a small decoder conditioned on the low-resolution frame makes the residual. Causal in time with a state
that the session owns, and computed frame by frame, so any chunking of a stream gives the very same pixels.

The network invents texture that fits what it was trained on. It is for showing, never an input to the memory.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn
from torch.nn import functional

from teleworld.models.checkpoint import load_into, load_safetensors, save_safetensors
from teleworld.models.initial import start_at_zero
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.models.stream_vae.state import StreamState
from teleworld.models.super_resolution.attention import BlockGrid, LocalSparseAttention
from teleworld.models.super_resolution.config import CELL, TOKEN, SuperResolutionConfig
from teleworld.world.errors import CheckpointError, InvalidInput

_KIND = "super_resolution"
_CUBIC_REACH = 2
_CELLS = TOKEN // CELL


class SuperResolution(nn.Module):
    """Enlarges video chunk by chunk. Stateless: the stream's memory is a StreamState in the caller's hands.

    Chunks are differentiable. In evaluation mode pixels are clamped to [-1, 1]; in training they are not, so that an
    overshoot still has a gradient.
    """

    def __init__(self, config: SuperResolutionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SuperResolutionConfig()
        self.scale = config.scale
        inputs = 3 + 4 * config.guided
        self.stem = nn.Conv2d(inputs, config.channels, 2 * CELL, stride=CELL, padding=CELL // 2)
        self.before = nn.Sequential(*(ConvBlock(config.channels) for _ in range(config.blocks[0])))
        self.to_tokens = nn.Linear(config.channels * _CELLS**2, config.token_channels)
        self.layers = nn.ModuleList(TokenLayer(config) for _ in range(config.layers))
        self.from_tokens = nn.Linear(config.token_channels, config.channels * _CELLS**2)
        self.after = nn.Sequential(*(ConvBlock(config.channels) for _ in range(config.blocks[1])))
        self.to_head = nn.Linear(config.channels, config.head_channels * CELL**2)
        self.head = nn.Conv2d(config.head_channels + 3, config.head_channels, 3, padding=1)
        self.residual = nn.Conv2d(config.head_channels, 3 * config.scale**2, 3, padding=1)
        start_at_zero(self.residual)  # an untrained network is bicubic enlargement
        self._cubic: Tensor
        self.register_buffer("_cubic", cubic_kernel(config.scale), persistent=False)
        self._grids: dict[tuple[int, int, torch.device], BlockGrid] = {}
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def new_state(self) -> StreamState:
        """The state of a stream of which nothing has been shown yet."""
        return StreamState(_KIND)

    def upscale_chunk(self, pixels: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        """Enlarge the next frames of a stream and advance `state`.

        pixels: [B, 3, F, H, W] in [-1, 1], F >= 1, H and W multiples of 8. guidance: of the same frames, at
        their size; None where nothing is known. It is a hint, of which a network that is not guided takes no notice.
        Returns [B, 3, F, scale * H, scale * W].
        Raises InvalidInput for a wrong shape, a state of another kind or of other sizes; `state` is then unchanged.
        """
        self._check(pixels, guidance)
        frames = pixels.shape[2]
        with state.chunk(_KIND, frames) as draft:
            shown = [
                self._frame(pixels[:, :, at], None if guidance is None else guidance.between(at, at + 1), draft)
                for at in range(frames)
            ]
        batch, _, _, height, width = pixels.shape
        # Stacking views is the pixel shuffle: each pixel is moved once.
        result = torch.stack(shown, dim=2).reshape(batch, 3, frames, self.scale * height, self.scale * width)
        return result if self.training else result.clamp(-1, 1)

    def upscale(self, pixels: Tensor, guidance: DecoderGuidance | None = None) -> Tensor:
        """Enlarge a whole sequence [B, 3, F, H, W]: `upscale_chunk` from a fresh state."""
        return self.upscale_chunk(pixels, self.new_state(), guidance)

    def _frame(self, low: Tensor, guidance: DecoderGuidance | None, state: StreamState) -> Tensor:
        """One frame: low [B, 3, H, W] -> [B, 3, H, scale, W, scale], its axes yet to be merged."""
        features = self.before(_cells_last(self.stem(self._input(low, guidance))))
        features = self.after(features + self._context(features, state))
        detail = _cells_first(_spread(self.to_head(features), CELL))
        low = low.contiguous(memory_format=torch.channels_last)
        detail = functional.relu(self.head(torch.cat([detail, low], dim=1)), inplace=True)
        smooth = functional.conv2d(functional.pad(low, (_CUBIC_REACH,) * 4, mode="replicate"), self._cubic)
        phases = self.residual(detail) + smooth
        return phases.unflatten(1, (3, self.scale, self.scale)).permute(0, 1, 4, 2, 5, 3)

    def _input(self, low: Tensor, guidance: DecoderGuidance | None) -> Tensor:
        """What the network sees of a frame: [B, 3, H, W], with guidance [B, 7, H, W]."""
        if not self.config.guided:
            return low
        if guidance is None:
            return functional.pad(low, (0, 0, 0, 0, 0, 4))
        hint = torch.cat([guidance.pixels * guidance.mask, guidance.mask], dim=1)[:, :, 0].to(low.dtype)
        return torch.cat([low, hint], dim=1)

    def _context(self, features: Tensor, state: StreamState) -> Tensor:
        """What attention over this frame and the last ones adds to the features [B, H / 2, W / 2, channels]."""
        coarse = self.to_tokens(_gather(features, _CELLS))
        grid = self._grid(coarse.shape[1], coarse.shape[2], coarse.device)
        tokens = grid.to_blocks(coarse)
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens, grid, state, f"layers.{number}")
        return _spread(self.from_tokens(grid.to_grid(tokens)), _CELLS)

    def _grid(self, height: int, width: int, device: torch.device) -> BlockGrid:
        """The block structure of a token grid: a constant of the size, so it is kept."""
        key = (height, width, device)
        if key not in self._grids:
            self._grids[key] = BlockGrid(height, width, self.config.block, device)
        return self._grids[key]

    def _check(self, pixels: Tensor, guidance: DecoderGuidance | None) -> None:
        if pixels.dim() != 5 or pixels.shape[1] != 3 or 0 in pixels.shape:
            raise InvalidInput("pixels", f"expected [B, 3, F, H, W], got {list(pixels.shape)}")
        if not pixels.is_floating_point():
            raise InvalidInput("pixels", f"expected a floating dtype, got {pixels.dtype}")
        batch, _, frames, height, width = pixels.shape
        if height % TOKEN or width % TOKEN:
            raise InvalidInput("pixels", f"{height} x {width} is not a multiple of {TOKEN}")
        if guidance is not None and guidance.pixels.shape != pixels.shape:
            raise InvalidInput("guidance.pixels", f"expected {list(pixels.shape)}, got {list(guidance.pixels.shape)}")


class ConvBlock(nn.Module):
    """x + mix(relu(widen(spread(x)))): a depthwise 5x5 convolution, then per cell there and back. [B, h, w, C].

    On CPU the depthwise part is nearly free and the rest is matrix products: more reach and depth for the time of a
    plain 3x3 convolution.
    """

    def __init__(self, channels: int, factor: int = 2) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.widen = nn.Linear(channels, factor * channels)
        self.mix = nn.Linear(factor * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return self.mix(functional.relu(self.widen(_cells_last(self.spread(_cells_first(x)))), inplace=True)).add_(x)


class TokenLayer(nn.Module):
    """A transformer layer, normalised before each part. Tokens [B, blocks, size, C]."""

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__()
        width = config.token_channels
        self.norm1 = nn.LayerNorm(width)
        self.attention = LocalSparseAttention(config)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.mix = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor, grid: BlockGrid, state: StreamState, slot: str) -> Tensor:
        """The same shape; advances the layer's `slot` of `state` by one frame."""
        tokens = tokens + self.attention(self.norm1(tokens), grid, state, slot)
        return tokens + self.mix(functional.gelu(self.widen(self.norm2(tokens))))


def _cells_last(grid: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, h, w, C]: a view, without a copy when the memory is channels-last."""
    return grid.permute(0, 2, 3, 1)


def _cells_first(grid: Tensor) -> Tensor:
    """[B, h, w, C] -> [B, C, h, w], a view."""
    return grid.permute(0, 3, 1, 2)


def _gather(grid: Tensor, by: int) -> Tensor:
    """[B, h, w, C] -> [B, h / by, w / by, by * by * C]."""
    batch, height, width, channels = grid.shape
    split = grid.reshape(batch, height // by, by, width // by, by, channels).transpose(2, 3)
    return split.reshape(batch, height // by, width // by, by * by * channels)


def _spread(grid: Tensor, by: int) -> Tensor:
    """Inverse of `_gather`: [B, h, w, by * by * C] -> [B, h * by, w * by, C]."""
    batch, height, width, channels = grid.shape
    split = grid.reshape(batch, height, width, by, by, channels // by**2).transpose(2, 3)
    return split.reshape(batch, height * by, width * by, channels // by**2)


def cubic_kernel(scale: int) -> Tensor:
    """Bicubic enlargement as a convolution: float32 [3 * scale^2, 3, 5, 5], to be followed by a pixel shuffle.

    Read off the library's own interpolation as its response to an impulse; on CPU the convolution is several times as
    fast. Applied to a picture padded by repeating its edge, it agrees with it to rounding.
    """
    side = 2 * _CUBIC_REACH + 1
    impulse = torch.zeros(side * side, 1, 3 * side, 3 * side)
    for at in range(side * side):
        impulse[at, 0, side + at // side, side + at % side] = 1
    wide = functional.interpolate(impulse, scale_factor=scale, mode="bicubic", align_corners=False)
    middle = scale * (side + _CUBIC_REACH)
    taps = wide[:, 0, middle : middle + scale, middle : middle + scale].permute(1, 2, 0).reshape(scale**2, side, side)
    kernel = torch.zeros(3, scale**2, 3, side, side)
    for colour in range(3):
        kernel[colour, :, colour] = taps
    return kernel.reshape(3 * scale**2, 3, side, side)


def save_super_resolution(
    path: str | os.PathLike[str], network: SuperResolution, metadata: dict[str, str] | None = None
) -> None:
    """Write the weights as float16 with the configuration in the metadata."""
    tensors = {name: tensor.half() for name, tensor in network.state_dict().items()}
    save_safetensors(path, tensors, {**(metadata or {}), "config": network.config.to_json()})


def load_super_resolution(path: str | os.PathLike[str], *, expected_sha256: str | None = None) -> SuperResolution:
    """The network of a checkpoint, in float32 and evaluation mode. Raises CheckpointError if it is none."""
    tensors, metadata = load_safetensors(path, expected_sha256=expected_sha256)
    if "config" not in metadata:
        raise CheckpointError(str(path), "has no super-resolution configuration")
    network = SuperResolution(SuperResolutionConfig.from_json(metadata["config"]))
    load_into(network, tensors, strict=True, source=str(path))
    return network.eval()
