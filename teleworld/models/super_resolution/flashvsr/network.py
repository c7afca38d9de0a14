"""FlashVSR: diffusion super-resolution in one step, in a stream (the paper's 3.6.3), under its public weight names.

A step makes two latents (a stream's first step `first_latents`) from noise: tokens of the low-quality frames are added to
those of the noise, Wan2.1's blocks with sparse attention see the last windows' keys and values, one velocity gives the
clean latents, and the conditional decoder makes the frames. Latent a stands for the frames 4a - 3 .. 4a and was trained to
see the four frames after them, so a stream runs four frames behind its input. `push` and `finish` work so; `upscale_chunk`
answers every chunk at once, for a decoder that shows what it has: what is not there yet is foreseen as standing still.

Any size: pictures are enlarged, padded by their edge to multiples of 128 pixels, and cut again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.dit.blocks import Block, Head, layer_norm
from teleworld.models.dit.kv_cache import CrossKV
from teleworld.models.dit.model import time_frequencies
from teleworld.models.dit.rope import rotate, rotations
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.models.stream_vae.state import StreamState
from teleworld.models.super_resolution.flashvsr.config import FLASH_VSR, FRAMES, PIXELS, WINDOW, FlashVSRConfig
from teleworld.models.super_resolution.flashvsr.layers import ConditionalDecoder, LowQualityProjection, matched_colours
from teleworld.models.super_resolution.flashvsr.lcsa import attend_to, choose, from_windows, neighbours, to_windows
from teleworld.world.errors import InvalidInput

_KIND = "flashvsr"
_NOISIEST = 1000.0
# Frames that the network sees before a latent's own, and after them.
_LEAD, _AHEAD = FRAMES - 1, FRAMES


class SparseBlock(Block):
    """Wan2.1's block with sparse attention over windows; keys and values of past windows are in the stream's state."""

    def sparse(
        self,
        x: Tensor,
        modulation: Tensor,
        rotation: Tensor,
        grid: tuple[int, int, int],
        text: CrossKV,
        sight: tuple[Tensor, int],
        state: StreamState,
        slot: str,
        kept: int,
    ) -> Tensor:
        """x [B, L, dim] of a grid -> the same. sight: `neighbours` and the top-k. kept: windows that stay in `state`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + modulation).unsqueeze(2).unbind(1)
        normal = layer_norm(x, self.eps) * (1 + scale1) + shift1
        own = self.self_attn.key_value(normal)
        query = to_windows(rotate(self.self_attn.query(normal), rotation), grid)
        keys = _with_past(state, f"{slot}.keys", to_windows(rotate(own.keys, rotation), grid), kept)
        values = _with_past(state, f"{slot}.values", to_windows(own.values, grid), kept)
        mixed = from_windows(attend_to(query, keys, values, choose(query, keys, *sight)), grid)
        x = x + self.self_attn.o(mixed.flatten(2)) * gate1
        x = x + self.cross_attn(self.norm3(x), text)
        normal = layer_norm(x, self.eps) * (1 + scale2) + shift2
        return x + self.ffn(normal, grid) * gate2


def _with_past(state: StreamState, slot: str, current: Tensor, kept: int) -> Tensor:
    """Past and current windows [B, heads, windows, blocks, 128, D], oldest first; the newest stay in the state."""
    past = state.past(slot, current)
    windows = current if past is None else torch.cat([past, current], dim=2)
    if kept:
        state.put(slot, windows[:, :, -kept:])
    return windows


class FlashVSR(nn.Module):
    """See the module's text. Stateless: a stream's memory is a StreamState in the caller's hands."""

    prompt: Tensor

    def __init__(self, config: FlashVSRConfig = FLASH_VSR) -> None:
        super().__init__()
        self.config, self.scale = config, config.scale
        dit = config.dit
        self.patch_embedding = nn.Conv3d(dit.channels, dit.dim, dit.patch, stride=dit.patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(dit.text_dim, dit.dim), nn.GELU(approximate="tanh"), nn.Linear(dit.dim, dit.dim)
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(dit.frequency_dim, dit.dim), nn.SiLU(), nn.Linear(dit.dim, dit.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dit.dim, 6 * dit.dim))
        self.blocks = nn.ModuleList(SparseBlock(dit) for _ in range(dit.layers))
        self.head = Head(dit)
        self.LQ_proj_in = LowQualityProjection(config.projection, dit.dim)
        self.TCDecoder = ConditionalDecoder(dit.channels, config.decoder)
        self.register_buffer("prompt", torch.zeros(1, config.prompt_tokens, dit.text_dim))

    def new_state(self) -> StreamState:
        """The state of a stream of which nothing has been shown yet."""
        return StreamState(_KIND)

    def push(self, pixels: Tensor, state: StreamState) -> Tensor:
        """Take the next frames [B, 3, F, H, W] in [-1, 1]; returns those that are ready [B, 3, F', scale * H, scale * W].

        F' may be 0: four frames lie between input and output, and a step makes two latents. Raises InvalidInput for a
        wrong shape or a state of another kind or size; `state` is then unchanged.
        """
        self._check(pixels)
        with state.chunk(_KIND, pixels.shape[2]) as draft:
            self._append(pixels, draft)
            return self._ready(draft)

    def finish(self, state: StreamState) -> Tensor:
        """The frames that are still missing at a stream's end, as if its last frame stood still. `state` is unchanged."""
        shown = _shown(state)
        return self._foreseen(state.clone(), state.frames)[:, :, : state.frames - shown]

    def upscale(self, pixels: Tensor) -> Tensor:
        """Enlarge a whole sequence [B, 3, F, H, W]."""
        state = self.new_state()
        ready = self.push(pixels, state)
        return torch.cat([ready, self.finish(state)], dim=2) if ready.shape[2] < pixels.shape[2] else ready

    def upscale_chunk(self, pixels: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        """Enlarge the next frames and answer exactly those, whatever the network would still like to see.

        Steps that have all their frames are done once and stay; frames behind them come from a copy of the state, with
        the last frame repeated, and are made again with the next chunk. Costs up to twice the steps of `push`. This network
        has no use for `guidance`.
        """
        self._check(pixels)
        before, count = state.frames, pixels.shape[2]
        with state.chunk(_KIND, count) as draft:
            self._append(pixels, draft)
            start = _shown(draft)
            frames = self._ready(draft)
            if start + frames.shape[2] < before + count:
                frames = torch.cat([frames, self._foreseen(draft.clone(), before + count)], dim=2)
        return frames[:, :, before - start : before - start + count]

    def _append(self, pixels: Tensor, state: StreamState) -> None:
        past = state.past("low", pixels)
        if past is None:  # the first latent stands for one frame, repeated
            past = pixels[:, :, :1].expand(-1, -1, _LEAD, -1, -1)
        state.put("low", torch.cat([past, pixels], dim=2))

    def _ready(self, state: StreamState) -> Tensor:
        """Do all steps that have their frames; returns what they show."""
        low = _held(state)
        shown = [low.new_zeros(len(low), 3, 0, self.scale * low.shape[3], self.scale * low.shape[4])]
        while low.shape[2] >= FRAMES * (latents := self._latents(state)) + _AHEAD:
            shown.append(self._step(low[:, :, : FRAMES * latents + _AHEAD], latents, state))
            low = low[:, :, FRAMES * latents :]
            state.put("low", low)
        return torch.cat(shown, dim=2)

    def _foreseen(self, state: StreamState, until: int) -> Tensor:
        """What `state` shows up to frame `until` if its last frame is repeated. Uses `state` up."""
        shown = []
        while _shown(state) < until:
            low = _held(state)
            missing = FRAMES * self._latents(state) + _AHEAD - low.shape[2]
            if missing > 0:
                state.put("low", torch.cat([low, low[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2))
            shown.append(self._ready(state))
        return torch.cat(shown, dim=2)

    def _latents(self, state: StreamState) -> int:
        """How many latents the next step makes."""
        return WINDOW[0] if _done(state) else self.config.first_latents

    def _step(self, low: Tensor, latents: int, state: StreamState) -> Tensor:
        """Frames of the next `latents` latents from low [B, 3, 4 * latents + 4, H, W]; the first latent shows one frame."""
        first, (height, width) = _done(state), low.shape[3:]
        wide = self._enlarged(low)
        clean = self._denoise(wide[:, :, _AHEAD:], first, latents, state)
        seen = wide[:, :, : FRAMES * latents]
        frames = self.TCDecoder(clean, seen, state)
        state.put("latents", torch.tensor([[[first + latents]]]))
        hidden = 0 if first else _LEAD
        frames, seen = frames[:, :, hidden:], seen[:, :, hidden:]
        if self.config.colour == "adain":
            frames = matched_colours(frames, seen)
        return frames[..., : self.scale * height, : self.scale * width].clamp(-1, 1)

    def _enlarged(self, low: Tensor) -> Tensor:
        """Bicubic, and the edge repeated to whole windows."""
        flat = low.transpose(1, 2).flatten(0, 1)
        if self.scale > 1:
            flat = F.interpolate(flat, scale_factor=self.scale, mode="bicubic", align_corners=False).clamp(-1, 1)
        down, across = (-size % PIXELS for size in flat.shape[2:])
        flat = F.pad(flat, (0, across, 0, down), mode="replicate")
        return flat.unflatten(0, (len(low), -1)).transpose(1, 2)

    def _denoise(self, ahead: Tensor, first: int, latents: int, state: StreamState) -> Tensor:
        """Clean latents [B, C, latents, H / 8, W / 8] for the low-quality frames [B, 3, 4 * latents, H, W]."""
        dit, (batch, _, _, height, width) = self.config.dit, ahead.shape
        noise = self._noise(first, latents, height // 8, width // 8).expand(batch, -1, -1, -1, -1).to(ahead)
        grid = latents, height // 16, width // 16
        x = self.patch_embedding(noise).flatten(2).transpose(1, 2)
        time = self.time_embedding(time_frequencies(x.new_full((batch,), _NOISIEST), dit.frequency_dim).to(x))
        modulation = self.time_projection(time).unflatten(-1, (6, -1))
        rotation = rotations(tuple(range(first, first + latents)), *grid[1:], dit.head_dim, dit.rope_theta).to(x.device)
        context = self.text_embedding(self.prompt.to(x)).expand(batch, -1, -1)
        near = neighbours(grid[1] // WINDOW[1], grid[2] // WINDOW[2], self.config.local_range, x.device)
        sight = near, self.config.top_blocks(height, width)
        fed = self.LQ_proj_in(ahead)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, SparseBlock)
            x = x + fed[number] if number < len(fed) else x
            text = block.cross_attn.context(context, None)
            x = block.sparse(
                x, modulation, rotation, grid, text, sight, state, f"blocks.{number}", self.config.kv_windows
            )
        values = self.head(x, time[:, None].expand(-1, latents, -1), grid[1] * grid[2])
        values = values.view(batch, *grid, *dit.patch, dit.channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return noise - values.reshape(noise.shape)

    def _noise(self, first: int, latents: int, height: int, width: int) -> Tensor:
        """[1, C, latents, h, w], a function of the seed and the latent's number alone."""
        drawn = []
        for latent in range(first, first + latents):
            source = torch.Generator().manual_seed(self.config.seed * 1_000_003 + latent)
            drawn.append(torch.randn(1, self.config.dit.channels, 1, height, width, generator=source))
        return torch.cat(drawn, dim=2)

    def _check(self, pixels: Tensor) -> None:
        if pixels.dim() != 5 or pixels.shape[1] != 3 or 0 in pixels.shape:
            raise InvalidInput("pixels", f"expected [B, 3, F, H, W], got {list(pixels.shape)}")
        if not pixels.is_floating_point():
            raise InvalidInput("pixels", f"expected a floating dtype, got {pixels.dtype}")


def _held(state: StreamState) -> Tensor:
    """The low-quality frames that are not used up."""
    low = state.held("low")
    if low is None:
        raise InvalidInput("state", "the stream has not begun")
    return low


def _done(state: StreamState) -> int:
    """How many latents have been made."""
    latents = state.held("latents")
    return 0 if latents is None else int(latents)


def _shown(state: StreamState) -> int:
    """How many frames those show."""
    latents = _done(state)
    return FRAMES * latents - _LEAD if latents else 0
