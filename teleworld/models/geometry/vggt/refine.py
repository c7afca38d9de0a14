"""From saliency to masks, as VGGT4D does it: cluster means, a multi-Otsu threshold, and a test by reprojection.

A token's saliency is noisy, an object's is not: tokens are clustered by their picture features over all frames, and each
takes its cluster's mean. The threshold is Otsu's with two to four classes, whichever separates best; above the highest
is dynamic. Once poses are known, each cluster of dynamic points is looked at from the other frames: one that is seen
there on static ground, with the same depth and colour, does not move after all.

Left out of the published refinement: the removal of outlying points and the morphology on pixels, which its authors apply
to full-resolution point clouds; the memory has its own confidence test for the first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.geometry.vggt.saliency import scaled

TOKEN_CLUSTERS, POINT_CLUSTERS = 64, 30
MAX_CLASSES, BINS = 4, 256
_ROUNDS, _SEED = 50, 42
_SEEN_SHARE, _LIKE, _BEHIND_M = 0.05, 0.1, 0.01


def clusters(vectors: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """k-means labels [N] of vectors [N, D], k-means++ from a fixed seed: the same input gives the same clusters."""
    draw = np.random.default_rng(_SEED)
    count = min(count, len(vectors))
    centres = vectors[[draw.integers(len(vectors))]]
    nearest = _squared(vectors, centres)[:, 0]
    while len(centres) < count and nearest.sum() > 0:
        chosen = vectors[[draw.choice(len(vectors), p=nearest / nearest.sum())]]
        centres = np.concatenate([centres, chosen])
        nearest = np.minimum(nearest, _squared(vectors, chosen)[:, 0])
    labels = np.full(len(vectors), -1)
    for _ in range(_ROUNDS):
        before, labels = labels, _squared(vectors, centres).argmin(1)
        if np.array_equal(before, labels):
            break
        belongs = (labels == np.arange(len(centres))[:, None]).astype(vectors.dtype)
        members = belongs.sum(1, keepdims=True)
        centres = np.where(members > 0, (belongs @ vectors) / np.maximum(members, 1), centres)
    return labels


def cluster_means(saliency: Tensor, features: Tensor) -> Tensor:
    """Saliency [S, P] -> each token's cluster mean, scaled per frame to [0, 1]. features: [S, P, D] picture features."""
    labels = torch.from_numpy(clusters(features.flatten(0, 1).double().cpu().numpy(), TOKEN_CLUSTERS)).to(
        saliency.device
    )
    count = int(labels.max()) + 1
    sums = saliency.new_zeros(count).index_add_(0, labels, saliency.flatten())
    means = sums / torch.bincount(labels, minlength=count).clamp_min(1)
    return scaled(means[labels].view_as(saliency))


def multi_otsu(values: NDArray[np.floating], classes: int, bins: int = BINS) -> NDArray[np.float64] | None:
    """The classes - 1 thresholds that maximise the variance between classes of a histogram; None if too few values differ."""
    counts, edges = np.histogram(values, bins)
    if np.count_nonzero(counts) < classes:
        return None
    weight = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    moment = np.concatenate([[0.0], np.cumsum(counts * np.arange(bins))]) / counts.sum()
    # gain[i, j]: what a class of bins i .. j - 1 adds to the variance between classes, up to a constant.
    mass = weight[None, :] - weight[:, None]
    gain = np.where(mass > 0, (moment[None, :] - moment[:, None]) ** 2 / np.where(mass > 0, mass, 1), -np.inf)
    best, cuts = gain[0], []
    for _ in range(classes - 1):
        totals = best[:, None] + gain
        cuts.append(totals.argmax(0))
        best = totals.max(0)
    end, thresholds = bins, []
    centres = (edges[:-1] + edges[1:]) / 2
    for cut in reversed(cuts):
        end = int(cut[end])
        thresholds.append(centres[end - 1])
    return np.array(thresholds[::-1])


def adaptive_threshold(values: NDArray[np.floating]) -> float:
    """The highest multi-Otsu threshold of the number of classes, 2 to 4, whose class means differ most for their number."""
    best, chosen = -np.inf, float(np.median(values))
    for classes in range(2, MAX_CLASSES + 1):
        thresholds = multi_otsu(values, classes)
        if thresholds is None:
            continue
        regions = np.digitize(values, thresholds)
        means = [values[regions == region].mean() for region in range(classes) if (regions == region).any()]
        if (score := float(np.var(means)) / classes**0.5) > best:
            best, chosen = score, float(thresholds[-1])
    return chosen


def dynamic_pixels(saliency: Tensor, features: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Dynamic pixels bool [S, H, W] from token saliency [S, P] and features [S, P, D] of a grid (h, w)."""
    means = cluster_means(saliency, features).unflatten(1, grid)
    wide = F.interpolate(means[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    if float(wide.max()) <= float(wide.min()):
        return torch.zeros_like(wide, dtype=torch.bool)
    return wide > adaptive_threshold(wide.cpu().numpy())


def confirmed(dynamic: Tensor, depth: Tensor, pictures: Tensor, camera_to_world: Tensor, intrinsics: Tensor) -> Tensor:
    """`dynamic` bool [S, H, W] without the clusters of points that other frames show to be static.

    depth [S, H, W], pictures [S, 3, H, W] in [0, 1], camera_to_world [S, 4, 4], intrinsics [S, 4] in pixels.
    """
    kept = torch.zeros_like(dynamic)
    if len(depth) < 2:
        return dynamic
    for frame in range(len(depth)):
        rows, columns = dynamic[frame].nonzero(as_tuple=True)
        if not len(rows):
            continue
        points = _unproject(depth[frame, rows, columns], rows, columns, camera_to_world[frame], intrinsics[frame])
        colours = pictures[frame, :, rows, columns].T
        labels = torch.from_numpy(clusters(points.double().cpu().numpy(), POINT_CLUSTERS)).to(rows.device)
        seen, error = _elsewhere(frame, points, colours, dynamic, depth, pictures, camera_to_world, intrinsics)
        for label in labels.unique():
            member = labels == label
            used = seen[:, member]
            share = used.float().mean()
            if share < _SEEN_SHARE or float(error[:, member][used].mean()) > _LIKE:
                kept[frame, rows[member], columns[member]] = True
    return kept


def _elsewhere(
    frame: int,
    points: Tensor,
    colours: Tensor,
    dynamic: Tensor,
    depth: Tensor,
    pictures: Tensor,
    camera_to_world: Tensor,
    intrinsics: Tensor,
) -> tuple[Tensor, Tensor]:
    """For each other frame and point [S - 1, N]: whether it is seen there on static ground, and how it differs.

    The difference is that of depth, plus a third of that of the colours' sum.
    """
    height, width = depth.shape[1:]
    others = [other for other in range(len(depth)) if other != frame]
    seen, error = [], []
    for other in others:
        local = torch.linalg.inv(camera_to_world[other]).to(points)
        x, y, z = (points @ local[:3, :3].T + local[:3, 3]).unbind(-1)
        fx, fy, cx, cy = intrinsics[other].to(points)
        ahead = z > 0
        safe = torch.where(ahead, z, 1)
        u, v = fx * x / safe + cx, fy * y / safe + cy
        inside = ahead & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        column, row = u.floor().long().clamp(0, width - 1), v.floor().long().clamp(0, height - 1)
        there = depth[other, row, column]
        seen.append(inside & (z - _BEHIND_M < there) & ~dynamic[other, row, column])
        colour = (colours - pictures[other, :, row, column].T).abs().sum(-1)
        error.append((z - there).abs() + colour / 3)
    return torch.stack(seen), torch.stack(error)


def _unproject(depth: Tensor, rows: Tensor, columns: Tensor, camera_to_world: Tensor, intrinsics: Tensor) -> Tensor:
    """Points [N, 3] in the world of pixels (rows, columns), at their centres."""
    fx, fy, cx, cy = intrinsics.to(depth)
    local = (
        torch.stack([(columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy, torch.ones_like(depth)], -1) * depth[:, None]
    )
    pose = camera_to_world.to(depth)
    return local @ pose[:3, :3].T + pose[:3, 3]


def _squared(vectors: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances [N, K]."""
    product = vectors @ centres.T
    distance = (vectors**2).sum(1)[:, None] - 2 * product + (centres**2).sum(1)[None]
    return np.maximum(distance, 0)
