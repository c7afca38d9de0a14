"""VGGT's heads: the camera head that refines poses four times, and the dense DPT depth head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.geometry.vggt.blocks import MLP, Block
from teleworld.models.geometry.vggt.config import VGGTConfig

POSE_VALUES = 9
_POSITION_OMEGA, _POSITION_SHARE = 100.0, 0.1
_HIDDEN = 32


class CameraHead(nn.Module):
    """Camera tokens -> pose encodings [t(3), quaternion xyzw(4), fov_h, fov_w]; world to camera, the first frame's axes.

    The estimate is refined `config.refinements` times: embedded, it modulates the normalised token (AdaLN with a gate),
    the trunk mixes frames, and a branch answers a correction.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        width = 2 * config.width
        self.refinements = config.refinements
        self.trunk = nn.Sequential(
            *(Block(width, config.heads, config.mlp_ratio, config.layer_scale) for _ in range(config.trunk))
        )
        self.token_norm = nn.LayerNorm(width)
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_VALUES))
        self.embed_pose = nn.Linear(POSE_VALUES, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.pose_branch = MLP(width, width // 2, POSE_VALUES)

    def forward(self, tokens: Tensor) -> Tensor:
        """The last pair's camera tokens [B, S, 2D] -> encodings [refinements, B, S, 9]; the last is the answer."""
        tokens = self.token_norm(tokens)
        normal = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        pose: Tensor | None = None
        answers = []
        for _ in range(self.refinements):
            known = self.empty_pose_tokens.expand(*tokens.shape[:2], -1) if pose is None else pose.detach()
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(known)).chunk(3, dim=-1)
            x = tokens + gate * (normal * (1 + scale) + shift)
            for block in self.trunk:
                x, _, _ = block(x)
            change = self.pose_branch(self.trunk_norm(x))
            pose = change if pose is None else pose + change
            answers.append(torch.cat([pose[..., :7], pose[..., 7:].relu()], dim=-1))
        return torch.stack(answers)


class ResidualConv(nn.Module):
    """act(x) + conv(act(conv(act(x)))). The skip carries the activated input: the public network activates in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return x + self.conv2(self.conv1(x).relu())


class Fusion(nn.Module):
    """One step from coarse to fine: add the finer level, mix, enlarge, project."""

    def __init__(self, width: int, *, adds: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        if adds:
            self.resConfUnit1 = ResidualConv(width)
        self.resConfUnit2 = ResidualConv(width)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        """x [N, C, h, w] and the finer level of the same size, if any -> [N, C, *size]."""
        x = self.resConfUnit2(x if finer is None else x + self.resConfUnit1(finer))
        return self.out_conv(F.interpolate(x, size, mode="bilinear", align_corners=True))


class Scratch(nn.Module):
    """The fusion pyramid, under the name it was published with."""

    def __init__(self, config: VGGTConfig, outputs: int) -> None:
        super().__init__()
        width = config.features
        for level, channels in enumerate(config.channels, start=1):
            setattr(self, f"layer{level}_rn", nn.Conv2d(channels, width, 3, padding=1, bias=False))
            setattr(self, f"refinenet{level}", Fusion(width, adds=level < len(config.channels)))
        self.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(width // 2, _HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(_HIDDEN, outputs, 1)
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Levels fine to coarse -> [N, features / 2, 2h, 2w] for the finest's (h, w)."""
        near = [getattr(self, f"layer{level}_rn")(x) for level, x in enumerate(levels, start=1)]
        height, width = near[0].shape[2:]
        sizes = [(2 * height, 2 * width), *((x.shape[2], x.shape[3]) for x in near[:-1])]
        x = near[-1]
        for level in range(len(near), 0, -1):
            finer = near[level - 1] if level < len(near) else None
            x = getattr(self, f"refinenet{level}")(x, finer, sizes[level - 1])
        return self.output_conv1(x)


class DPTHead(nn.Module):
    """Tokens of four pairs -> one dense value and its confidence. Depth is exp, confidence 1 + exp."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.patch, self.taps = config.patch, config.taps
        first, second, third, fourth = config.channels
        self.norm = nn.LayerNorm(2 * config.width)
        self.projects = nn.ModuleList(nn.Conv2d(2 * config.width, channels, 1) for channels in config.channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(config, outputs=2)

    def forward(self, taps: dict[int, Tensor], grid: tuple[int, int], specials: int) -> tuple[Tensor, Tensor]:
        """taps [B, S, T, 2D] by pair, of a grid (h, w) -> depth and confidence [B, S, h * patch, w * patch]."""
        batch, frames = next(iter(taps.values())).shape[:2]
        size = grid[0] * self.patch, grid[1] * self.patch
        levels = []
        for tap, project, resize in zip(self.taps, self.projects, self.resize_layers, strict=True):
            x = self.norm(taps[tap][:, :, specials:].flatten(0, 1)).transpose(1, 2).unflatten(2, grid)
            levels.append(resize(_positioned(project(x), size)))
        x = F.interpolate(self.scratch(levels), size, mode="bilinear", align_corners=True)
        depth, confidence = self.scratch.output_conv2(_positioned(x, size)).unflatten(0, (batch, frames)).unbind(2)
        return depth.exp(), 1 + confidence.exp()


def _positioned(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x [N, C, h, w] plus a small sine embedding of each cell's place on a picture of `size` (height, width)."""
    channels, rows, columns = x.shape[1:]
    aspect = size[1] / size[0]
    diagonal = (aspect**2 + 1) ** 0.5
    axis = lambda count, span: torch.linspace(-span * (count - 1) / count, span * (count - 1) / count, count)  # noqa: E731
    rates = _POSITION_OMEGA ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))

    def waves(places: Tensor) -> Tensor:
        angles = rates[:, None] * places.double()
        return torch.cat([angles.sin(), angles.cos()]).to(x)

    across = waves(axis(columns, aspect / diagonal))[:, None, :].expand(-1, rows, -1)
    down = waves(axis(rows, 1 / diagonal))[:, :, None].expand(-1, -1, columns)
    return x + _POSITION_SHARE * torch.cat([across, down])
