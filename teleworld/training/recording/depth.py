"""Exact depth for a recorded frame.

The engine's depth buffer has 8 bits: steps of 7 map units (22 cm), too coarse to warp with. The same picture can be
traced from the map itself: one horizontal ray a column through the map's lines, front to back, each opening
narrowing the rows that are still free, as the engine's own renderer does. That yields the exact depth of every wall,
floor and ceiling, tells the sky apart, and says which surface each pixel shows. The 8-bit buffer then serves as a
witness: where trace and buffer disagree (fences, deep water, sector tricks), the buffer's value is snapped to the
nearest wall hit of the column, or kept as it is. Sprites always face the camera, so their depth is the object's.

Not to be trusted within a pixel of a silhouette, nor for fences seen through their holes.

Pixels are at 96x160; depth is z-depth (along the optical axis), here in map units.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 96, 160
FX, FY = WIDTH / 2.4, 80.0
CX, CY = WIDTH / 2.0, HEIGHT / 2.0
BUFFER_OFFSET, BUFFER_SCALE = 1.256, 0.14
BUFFER_SATURATED = 255
BUFFER_WRAPS_BELOW = 16.0
FLAT, NO_SURFACE = -1, -2
MAX_HITS = 256

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]


def buffer_to_units(depth_buffer: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Depth in map units of the engine's 8-bit z-depth buffer, about 7 units a level, saturating near 1830."""
    return ((depth_buffer.astype(np.float32) + BUFFER_OFFSET) / BUFFER_SCALE).astype(np.float32)


@numba.njit(cache=True)
def trace(
    segments: F64, front: I32, back: I32, floor: F64, ceiling: F64, sky: npt.NDArray[np.bool_], eye: F64, cy: float
) -> tuple[npt.NDArray[np.float32], I32, I32, npt.NDArray[np.float32], I32]:
    """Depth and surface of every pixel, from the map alone.

    Args:
        segments: `[L, 4]` lines in map units.
        front: `[L]` sector on the right of each line.
        back: `[L]` sector on the left, -1 for none.
        floor: `[S]` present floor heights.
        ceiling: `[S]` present ceiling heights.
        sky: `[S]` sectors open to the sky.
        eye: `[4]` x, y, z of the camera and its angle in radians, counter-clockwise from east.
        cy: principal row, the image of the horizon.

    Returns:
        depth `[96, 160]` in map units (0 for sky and nothing);
        line `[96, 160]` index of the wall's line, -1 for floors and ceilings, -2 for sky and nothing;
        sector `[96, 160]` of the floor or ceiling, or of the moving part of the wall (-1 for sky and nothing);
        hits `[160, 256]` sorted depths of the column's wall crossings, and their number `[160]`.
    """
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    line_of = np.full((HEIGHT, WIDTH), NO_SURFACE, np.int32)
    sector_of = np.full((HEIGHT, WIDTH), -1, np.int32)
    hits = np.zeros((WIDTH, MAX_HITS), np.float32)
    counts = np.zeros(WIDTH, np.int32)
    order = np.zeros(MAX_HITS, np.int64)
    ex, ey, ez = eye[0], eye[1], eye[2]
    forward_x, forward_y = np.cos(eye[3]), np.sin(eye[3])

    for u in range(WIDTH):
        slope = (u + 0.5 - CX) / FX
        dx, dy = forward_x + slope * forward_y, forward_y - slope * forward_x
        count = 0
        for i in range(segments.shape[0]):
            ax, ay = segments[i, 0] - ex, segments[i, 1] - ey
            bx, by = segments[i, 2] - ex, segments[i, 3] - ey
            side_a, side_b = dx * ay - dy * ax, dx * by - dy * bx
            if (side_a >= 0) == (side_b >= 0):
                continue
            share = side_a / (side_a - side_b)
            t = ((ax + share * (bx - ax)) * dx + (ay + share * (by - ay)) * dy) / (dx * dx + dy * dy)
            if t <= 0.01 or (count == MAX_HITS and t >= hits[u, count - 1]):
                continue
            j = count if count < MAX_HITS else MAX_HITS - 1
            while j > 0 and hits[u, j - 1] > t:
                hits[u, j] = hits[u, j - 1]
                order[j] = order[j - 1]
                j -= 1
            hits[u, j] = t
            order[j] = i
            count = min(count + 1, MAX_HITS)
        counts[u] = count

        top, bottom = 0, HEIGHT
        for k in range(count):
            if top >= bottom:
                break
            i, t = order[k], hits[u, k]
            facing = (segments[i, 2] - segments[i, 0]) * (ey - segments[i, 1]) - (segments[i, 3] - segments[i, 1]) * (
                ex - segments[i, 0]
            )
            near, far = (front[i], back[i]) if facing < 0 else (back[i], front[i])
            if near < 0 or near == far:
                continue
            roof = ceiling[near]
            if far >= 0 and sky[near] and sky[far]:
                roof = min(roof, ceiling[far])
            row_roof = cy - FY * (roof - ez) / t
            row_floor = cy + FY * (ez - floor[near]) / t
            while top < bottom and top + 0.5 < row_roof:
                if not sky[near] and ceiling[near] > ez:
                    depth[top, u] = FY * (ceiling[near] - ez) / (cy - top - 0.5)
                    line_of[top, u], sector_of[top, u] = FLAT, near
                top += 1
            while bottom > top and bottom - 0.5 > row_floor:
                if ez > floor[near]:
                    depth[bottom - 1, u] = FY * (ez - floor[near]) / (bottom - 0.5 - cy)
                    line_of[bottom - 1, u], sector_of[bottom - 1, u] = FLAT, near
                bottom -= 1
            upper = HEIGHT * 1.0 if far < 0 else cy - FY * (ceiling[far] - ez) / t
            while top < bottom and top + 0.5 < upper:
                if far < 0 or not (sky[near] and sky[far]):
                    depth[top, u] = t
                    line_of[top, u], sector_of[top, u] = i, near if far < 0 else far
                top += 1
            if far >= 0:
                lower = cy + FY * (ez - floor[far]) / t
                while bottom > top and bottom - 0.5 > lower:
                    depth[bottom - 1, u] = t
                    line_of[bottom - 1, u], sector_of[bottom - 1, u] = i, far
                    bottom -= 1
    return depth, line_of, sector_of, hits, counts


@numba.njit(cache=True)
def layer_sprites(
    labels: npt.NDArray[np.uint8], values: npt.NDArray[np.int64], depths: F64, moving: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Sprites at 96x160, from the engine's labels.

    Args:
        labels: `[192, 320]` the engine's label buffer.
        values: `[N]` label of each sprite.
        depths: `[N]` its depth in map units.
        moving: `[N]` whether it may move.

    Returns:
        depth `[96, 160]` f32 where one sprite covers at least half of the pixel, else 0;
        mask `[96, 160]` of pixels that any moving sprite touches.
    """
    sprite_of = np.full(256, -1, np.int64)
    for i in range(len(values)):
        sprite_of[values[i]] = i
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    dynamic = np.zeros((HEIGHT, WIDTH), np.bool_)
    inside = np.zeros(4, np.int64)
    for v in range(HEIGHT):
        for u in range(WIDTH):
            for k in range(4):
                inside[k] = sprite_of[labels[2 * v + k // 2, 2 * u + k % 2]]
            winner = -1
            for k in range(4):
                if inside[k] >= 0 and moving[inside[k]]:
                    dynamic[v, u] = True
                for other in range(k):
                    if inside[other] == inside[k]:
                        winner = max(winner, inside[k])
            if winner >= 0:
                depth[v, u] = depths[winner]
    return depth, dynamic


@numba.njit(cache=True)
def fuse(
    traced: npt.NDArray[np.float32],
    line_of: I32,
    buffer: npt.NDArray[np.float32],
    objects: npt.NDArray[np.float32],
    hits: npt.NDArray[np.float32],
    counts: I32,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Joins the traced depth, the 8-bit buffer and the sprites into one depth picture.

    Args:
        traced: `[96, 160]` depth from `trace`, 0 for sky.
        line_of: `[96, 160]` surface from `trace`.
        buffer: `[192, 320]` the engine's depth in map units.
        objects: `[96, 160]` depth of the sprite that covers the pixel, 0 where there is none.
        hits: `[160, 256]` wall crossings of each column.
        counts: `[160]` how many of them.

    Returns:
        depth `[96, 160]` in map units, 0 for sky;
        source `[96, 160]` u8: 0 sky, 1 traced, 2 sprite, 3 snapped to a wall, 4 buffer as it is.
    """
    depth = np.zeros((HEIGHT, WIDTH), np.float32)
    source = np.zeros((HEIGHT, WIDTH), np.uint8)
    saturated = (BUFFER_SATURATED + BUFFER_OFFSET) / BUFFER_SCALE - 1.0
    step = 1.0 / BUFFER_SCALE
    for v in range(HEIGHT):
        for u in range(WIDTH):
            if objects[v, u] > 0:
                depth[v, u], source[v, u] = objects[v, u], 2
                continue
            low, high, total = np.float32(1e9), np.float32(0), np.float32(0)
            for b in range(2):
                for a in range(2):
                    z = buffer[2 * v + b, 2 * u + a]
                    low, high, total = min(low, z), max(high, z), total + z
            z = traced[v, u]
            if z == 0 and line_of[v, u] == NO_SURFACE:
                continue
            slack = step + 0.02 * z
            if (
                z < BUFFER_WRAPS_BELOW
                or low - slack <= z <= high + slack
                or (high >= saturated and z >= saturated - slack)
            ):
                depth[v, u], source[v, u] = z, 1
                continue
            mean, best = total / 4, np.float32(step)
            depth[v, u], source[v, u] = mean, 4
            for k in range(counts[u]):
                if abs(hits[u, k] - mean) < best:
                    best = abs(hits[u, k] - mean)
                    depth[v, u], source[v, u] = hits[u, k], 3
    return depth, source
