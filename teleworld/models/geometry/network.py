"""The geometry network: key frames with commanded poses and rendered guidance depth -> metric depth and dynamic mask.

It follows VGGT (alternating frame and global attention, camera and register tokens, a dense head) and VGGT4D (dynamic
saliency from attention, a second pass in which dynamic tokens lend no keys), as paper 3.3 describes, with two
differences: poses and intrinsics are known and given, and the depth rendered from the memory is an input, so that the
answer is metric and consistent with what the memory holds already.

What it must not be trusted with: poses. The commanded ones are the truth of the world; the camera head only says how
much the pictures disagree with them. Depth of the sky and of mirrors means nothing, and its confidence says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleworld.models.geometry.blocks import AttentionPair, Rotary2D
from teleworld.models.geometry.config import NANO_GEOMETRY, GeometryConfig
from teleworld.models.geometry.heads import CameraHead, DepthHead, ResidualConv, Stem, stem_inputs
from teleworld.models.geometry.inputs import MAX_DEPTH_M, MIN_DEPTH_M, GeometryEstimate, checked_inputs
from teleworld.models.geometry.saliency import SaliencyHead, dynamic_tokens, gram_maps

_POSE_FEATURES = 12
_TRANSLATION_SPREAD_M = 4.0


@dataclass(frozen=True, eq=False)
class GeometryOutput:
    """Raw outputs of one pass over a batch, for training.

    log_depth: [B, S, H, W], ln metres. confidence: [B, S, H, W], 1 + exp, the inverse of the expected log-depth error.
    dynamic_logits: [B, S, H, W], from the attention of this pass. pose_correction: [B, S, 6]. gram: [B, S, 18, h, w],
    the normalised Gram maps. bins: [B, S, bins, H/2, W/2], logits of the depth bins, if any.
    """

    log_depth: Tensor
    confidence: Tensor
    dynamic_logits: Tensor
    pose_correction: Tensor
    gram: Tensor
    bins: Tensor | None


@dataclass(frozen=True, eq=False)
class _Pass:
    """One pass through the attention pairs: `states[p]` [B, S, T, D] enters pair p, `states[-1]` leaves the last one.

    queries, keys: [B, S, heads, h*w, head_dim] of the patch tokens in each pair's global block.
    """

    states: list[Tensor]
    queries: list[Tensor]
    keys: list[Tensor]


class GeometryNetwork(nn.Module):
    """See the module's text. Pictures must be whole numbers of patches high and wide."""

    def __init__(self, config: GeometryConfig = NANO_GEOMETRY) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = Stem(config)
        self.rays = nn.Linear(6, width)
        # Index 0 is for the reference frame (the last one), 1 for all others.
        self.camera_tokens = nn.Parameter(torch.randn(2, 1, width) * 0.02)
        self.registers = nn.Parameter(torch.randn(2, config.registers, width) * 0.02)
        self.pose = nn.Sequential(nn.Linear(_POSE_FEATURES, width), nn.GELU(), nn.Linear(width, width))
        self.rotary = Rotary2D(width // config.heads, config.rope_base)
        self.pairs = nn.ModuleList(AttentionPair(config) for _ in range(config.pairs))
        self.depth_head = DepthHead(config)
        self.camera_head = CameraHead(width)
        self.saliency_head = SaliencyHead(config)
        self._initialise()
        # The convolutions run channels-last; weights in that layout save a reorder at each call.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _initialise(self) -> None:
        """Keep the size of signals through the layers; torch's defaults shrink them until biases drown the picture."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if module.kernel_size[0] > 1 else "linear")
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualConv | DepthHead | CameraHead | SaliencyHead):
                module.start()

    @property
    def specials(self) -> int:
        """Camera and register tokens of a frame; they stand before its patch tokens and are never suppressed."""
        return 1 + self.config.registers

    def forward(
        self,
        pictures: Tensor,
        intrinsics: Tensor,
        camera_to_reference: Tensor,
        guidance: Tensor,
        suppressed: Tensor | None = None,
    ) -> GeometryOutput:
        """One pass.

        pictures [B, S, 3, H, W] in [-1, 1]; intrinsics [B, S, 4] (fx, fy, cx, cy) in pixels; camera_to_reference
        [B, S, 4, 4], poses as `rebase` gives them; guidance [B, S, H, W] in metres, 0 = hole;
        suppressed bool [B, S, h, w], dynamic tokens whose keys are dropped in the early layers.
        """
        skips, tokens, grid = self._embed(pictures, intrinsics, camera_to_reference, guidance)
        passed = self._attend(tokens, grid, suppressed)
        log_depth, confidence, bins = self._depth(passed, skips, guidance, grid)
        gram, logits = self._saliency(passed, skips, grid)
        correction = self.camera_head(passed.states[-1][:, :, 0])
        return GeometryOutput(log_depth, confidence, logits, correction, gram, bins)

    @torch.inference_mode()
    def infer(
        self, pictures: Tensor, intrinsics: Tensor, camera_to_world: Tensor, guidance_depth: Tensor
    ) -> GeometryEstimate:
        """Depth, confidence and dynamic probability of S frames.

        The same input gives the same bits for the same machine and number of threads. Tokens that look dynamic in a
        first pass lend no keys in the second one, which is left out when nothing moves.

        pictures [S, 3, H, W] float32 in [-1, 1]; intrinsics [S, 4] in pixels; camera_to_world [S, 4, 4] float64;
        guidance_depth [S, H, W] metres, 0 = hole. Numpy arrays are welcome. Raises InvalidInput for wrong shapes.
        """
        pictures, intrinsics, poses, guidance = checked_inputs(
            pictures, intrinsics, camera_to_world, guidance_depth, self.config.patch
        )
        device = next(self.parameters()).device
        inputs = pictures[None], intrinsics[None], rebase(poses[None]).float(), guidance[None]
        batch = tuple(tensor.to(device) for tensor in inputs)
        skips, tokens, grid = self._embed(*batch)
        first = self._attend(tokens, grid, None)
        _, logits = self._saliency(first, skips, grid)
        dynamic = logits.sigmoid()
        suppressed = dynamic_tokens(dynamic, self.config.patch, self.config.suppress_above)
        final = self._attend(tokens, grid, suppressed, first) if bool(suppressed.any()) else first
        log_depth, confidence, _ = self._depth(final, skips, batch[3], grid)
        return GeometryEstimate(
            depth=log_depth[0].exp().clamp(MIN_DEPTH_M, MAX_DEPTH_M).cpu(),
            confidence=within_tolerance(confidence[0], self.config.tolerance).cpu(),
            dynamic=dynamic[0].cpu(),
            pose_correction=self.camera_head(final.states[-1][:, :, 0])[0].cpu(),
        )

    def _embed(
        self, pictures: Tensor, intrinsics: Tensor, camera_to_reference: Tensor, guidance: Tensor
    ) -> tuple[list[Tensor], Tensor, tuple[int, int]]:
        """-> (stem features [B*S, C, ., .] fine to coarse, tokens [B, S, T, D], token grid (h, w))."""
        batch, frames, _, height, width = pictures.shape
        grid = height // self.config.patch, width // self.config.patch
        rays, poses = pixel_rays(intrinsics.flatten(0, 1), height, width), camera_to_reference.flatten(0, 1)
        down = poses[:, 1, :3, None, None]
        fall = down[:, 0] * rays[:, 0] + down[:, 1] * rays[:, 1] + down[:, 2]
        inputs = stem_inputs(pictures.flatten(0, 1), guidance.flatten(0, 1), rays, fall)
        skips, patches = self.stem(inputs.contiguous(memory_format=torch.channels_last))
        patches = patches + self.rays(_reference_rays(F.avg_pool2d(rays, self.config.patch), poses))
        reference = torch.arange(frames, device=pictures.device) == frames - 1
        which = (~reference).long()
        camera = self.camera_tokens[which] + self.pose(_pose_features(poses)).view(batch, frames, 1, -1)
        registers = self.registers[which].expand(batch, -1, -1, -1)
        return skips, torch.cat([camera, registers, patches.view(batch, frames, *patches.shape[1:])], dim=2), grid

    def _attend(
        self, tokens: Tensor, grid: tuple[int, int], suppressed: Tensor | None, before: _Pass | None = None
    ) -> _Pass:
        """Run the pairs; `before`, a pass over the same tokens without suppression, lends its first ones."""
        tables = self.rotary.tables(self.specials, *grid)
        keep = None if suppressed is None else F.pad(~suppressed.flatten(2), (self.specials, 0), value=True)
        start = min(self.config.suppressed_pairs, default=self.config.pairs) if before is not None else 0
        states = [tokens] if before is None else before.states[: start + 1]
        queries = [] if before is None else before.queries[:start]
        keys = [] if before is None else before.keys[:start]
        for index, pair in enumerate(self.pairs[start:], start=start):
            state, q, k = pair(states[-1], tables, keep if index in self.config.suppressed_pairs else None)
            states.append(state)
            queries.append(q[:, :, :, self.specials :])
            keys.append(k[:, :, :, self.specials :])
        return _Pass(states, queries, keys)

    def _depth(
        self, passed: _Pass, skips: Sequence[Tensor], guidance: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """-> (ln depth [B, S, H, W], confidence 1 + exp [B, S, H, W], bin logits [B, S, bins, H/2, W/2] if any)."""
        taps = [state[:, :, self.specials :].flatten(0, 1) for state in passed.states[1:]]
        log_depth, raw, bins = self.depth_head(taps, skips, guidance.flatten(0, 1), grid)
        shape = guidance.shape[:2]
        confidence = 1 + raw.clamp(max=8.0).exp()
        bins = None if bins is None else bins.unflatten(0, shape)
        return log_depth.unflatten(0, shape), confidence.unflatten(0, shape), bins

    def _saliency(self, passed: _Pass, skips: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """-> (Gram maps [B, S, 18, h, w], logits [B, S, H, W])."""
        maps = gram_maps(passed.queries, passed.keys, self.config.groups).unflatten(3, grid)
        shape = maps.shape[:2]
        tokens = passed.states[-1][:, :, self.specials :].flatten(0, 1)
        size = skips[0].shape[-2], skips[0].shape[-1]
        logits = self.saliency_head(maps.flatten(0, 1), tokens, skips, size)
        return maps, logits.unflatten(0, shape)


def rebase(camera_to_world: Tensor) -> Tensor:
    """Poses [B, S, 4, 4] in the world -> relative to each batch entry's last frame, same dtype (give float64).

    The reference stands where the last camera stands and has its heading, but stays level, so that y is still down.
    """
    last = camera_to_world[:, -1]
    forward = last[:, (0, 2), 2]
    sin, cos = (forward / forward.norm(dim=1, keepdim=True).clamp_min(1e-9)).unbind(1)
    reference = torch.eye(4, dtype=last.dtype, device=last.device).repeat(len(last), 1, 1)
    reference[:, 0, 0], reference[:, 0, 2], reference[:, 2, 0], reference[:, 2, 2] = cos, sin, -sin, cos
    reference[:, :3, 3] = last[:, :3, 3]
    return torch.linalg.inv(reference)[:, None] @ camera_to_world


def pixel_rays(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Viewing rays (x / z, y / z) [N, 2, H, W] of cameras [N, 4], at pixel centres (integer + 0.5)."""
    fx, fy, cx, cy = intrinsics.unbind(1)
    columns = torch.arange(width, device=intrinsics.device) + 0.5
    rows = torch.arange(height, device=intrinsics.device) + 0.5
    x = ((columns - cx[:, None]) / fx[:, None])[:, None, :].expand(-1, height, -1)
    y = ((rows - cy[:, None]) / fy[:, None])[:, :, None].expand(-1, -1, width)
    return torch.stack([x, y], dim=1)


def within_tolerance(confidence: Tensor, tolerance: float) -> Tensor:
    """Probability that the log-depth error is below `tolerance`, for a Laplace error of scale 1 / confidence."""
    return 1 - torch.exp(-tolerance * confidence)


def _pose_features(poses: Tensor) -> Tensor:
    """Poses [N, 4, 4] -> [N, 12]: translation in units of a few metres, rotation less the identity."""
    rotation = poses[:, :3, :3] - torch.eye(3, dtype=poses.dtype, device=poses.device)
    return torch.cat([poses[:, :3, 3] / _TRANSLATION_SPREAD_M, rotation.flatten(1)], dim=1)


def _reference_rays(rays: Tensor, poses: Tensor) -> Tensor:
    """Rays [N, 2, h, w] in their cameras -> [N, h*w, 6]: direction and origin in the axes of the reference frame."""
    directions = F.pad(rays.flatten(2).transpose(1, 2), (0, 1), value=1.0)
    directions = F.normalize(directions, dim=-1) @ poses[:, :3, :3].transpose(1, 2)
    origins = (poses[:, None, :3, 3] / _TRANSLATION_SPREAD_M).expand_as(directions)
    return torch.cat([directions, origins], dim=-1)
