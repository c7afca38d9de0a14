"""The loops over footprints on the pixel grid: the two passes of rendering, and the confrontation of fusing.

They share one file because compiled code that calls another file's is not made anew when only that file changes.
Footprints are the records of `teleworld.memory.footprint`.
"""

from __future__ import annotations

import numpy as np

from teleworld.memory.compiled import compiled

SOLID = np.float32(0.55)  # squared radius, in ellipses, over which a surfel is opaque: a little past its corners
SEEN, STRUCK, REPLACED = 1, 2, 3  # verdicts on a point; 0 is none


@compiled
def _box(centre_u, centre_v, half_u, half_v, width, height):  # type: ignore[no-untyped-def]
    """(u0, u1, v0, v1), ends excluded: pixels whose centres lie within the half-widths, the central pixel always."""
    half = np.float32(0.5)
    iu, iv = int(np.floor(centre_u)), int(np.floor(centre_v))
    u0 = min(iu, int(np.floor(centre_u - half_u + half)))
    u1 = max(iu, int(np.floor(centre_u + half_u - half)))
    v0 = min(iv, int(np.floor(centre_v - half_v + half)))
    v1 = max(iv, int(np.floor(centre_v + half_v - half)))
    return max(u0, 0), min(u1 + 1, width), max(v0, 0), min(v1 + 1, height)


@compiled
def front_surface(record, nearest):  # type: ignore[no-untyped-def]
    """Pass one: `nearest` [H, W] becomes the largest inverse depth over every footprint."""
    height, width = nearest.shape
    half = np.float32(0.5)
    two = np.float32(2)
    root = np.sqrt(SOLID)
    for i in range(len(record)):
        u, v, w, gu, gv = record[i, 0], record[i, 1], record[i, 2], record[i, 3], record[i, 4]
        a, b, c, hu, hv = record[i, 5], record[i, 6], record[i, 7], record[i, 9], record[i, 10]
        iu, iv = int(np.floor(u)), int(np.floor(v))
        if hu * root < half and hv * root < half:  # a point and no more: most of what is seen from afar
            if 0 <= iu < width and 0 <= iv < height and w > nearest[iv, iu]:
                nearest[iv, iu] = w
            continue
        u0, u1, v0, v1 = _box(u, v, root * hu, root * hv, width, height)
        low, high = w * np.float32(0.7), w * np.float32(1.4)  # a plane seen edge-on must not run to the horizon
        for py in range(v0, v1):
            dv = np.float32(py) + half - v
            for px in range(u0, u1):
                du = np.float32(px) + half - u
                if a * du * du + two * b * du * dv + c * dv * dv > SOLID and (px != iu or py != iv):
                    continue
                here = min(max(w + gu * du + gv * dv, low), high)
                if here > nearest[py, px]:
                    nearest[py, px] = here


@compiled
def _add(total, index, v, u, row, colours, point, inverse_depth, weight):  # type: ignore[no-untyped-def]
    """Add one surfel to the sums of a pixel."""
    total[v, u, 0] += weight * np.float32(colours[point, 0])
    total[v, u, 1] += weight * np.float32(colours[point, 1])
    total[v, u, 2] += weight * np.float32(colours[point, 2])
    total[v, u, 3] += weight * inverse_depth
    total[v, u, 4] += weight
    if weight > total[v, u, 5]:
        total[v, u, 5] = weight
        index[v, u] = row


@compiled
def blend(record, row, base, colours, reach, front, nearest, total, index):  # type: ignore[no-untyped-def]
    """Pass two: sums `total` [H, W, 6] of weighted (r, g, b, inverse depth), weight and the heaviest; `index` its row."""
    height, width = nearest.shape
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    least = np.float32(1e-4)
    root = np.sqrt(reach)
    scale = one / reach
    for i in range(len(record)):
        u, v, w, gu, gv = record[i, 0], record[i, 1], record[i, 2], record[i, 3], record[i, 4]
        a, b, c, fine, hu, hv = record[i, 5], record[i, 6], record[i, 7], record[i, 8], record[i, 9], record[i, 10]
        iu, iv = int(np.floor(u)), int(np.floor(v))
        low, high = w * np.float32(0.7), w * np.float32(1.4)
        if hu * root < half and hv * root < half:
            if iu < 0 or iu >= width or iv < 0 or iv >= height or w < nearest[iv, iu] * front:
                continue
            du, dv = np.float32(iu) + half - u, np.float32(iv) + half - v
            near = max(one - (a * du * du + two * b * du * dv + c * dv * dv) * scale, np.float32(0))
            weight = (near * near + least) * fine
            _add(total, index, iv, iu, row[i], colours, row[i] - base, w, weight)
            continue
        u0, u1, v0, v1 = _box(u, v, root * hu, root * hv, width, height)
        for py in range(v0, v1):
            dv = np.float32(py) + half - v
            for px in range(u0, u1):
                du = np.float32(px) + half - u
                near = one - (a * du * du + two * b * du * dv + c * dv * dv) * scale
                if near <= 0:
                    if px != iu or py != iv:
                        continue
                    near = np.float32(0)
                here = min(max(w + gu * du + gv * dv, low), high)
                if here < nearest[py, px] * front:
                    continue
                weight = (near * near + least) * fine
                _add(total, index, py, px, row[i], colours, row[i] - base, here, weight)


@compiled
def finish(total, rgb, depth):  # type: ignore[no-untyped-def]
    """Sums to colours and depth; a pixel without weight stays a hole."""
    height, width = depth.shape
    half, one = np.float32(0.5), np.float32(1)
    for v in range(height):
        for u in range(width):
            weight = total[v, u, 4]
            if weight > 0:
                inverse = one / weight
                rgb[v, u, 0] = np.uint8(total[v, u, 0] * inverse + half)
                rgb[v, u, 1] = np.uint8(total[v, u, 1] * inverse + half)
                rgb[v, u, 2] = np.uint8(total[v, u, 2] * inverse + half)
                depth[v, u] = weight / total[v, u, 3]


@compiled
def judge(record, row, depth, still, points, agree, contradict, coarse):  # type: ignore[no-untyped-def]
    """(known bool [H, W]: pixels whose surface the memory has; verdict uint8 [P] on each point)."""
    height, width = depth.shape
    known = np.zeros((height, width), np.bool_)
    verdict = np.zeros(points, np.uint8)
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    root = np.sqrt(SOLID)
    for i in range(len(row)):
        u, v, w, gu, gv = record[i, 0], record[i, 1], record[i, 2], record[i, 3], record[i, 4]
        a, b, c, fine, hu, hv = record[i, 5], record[i, 6], record[i, 7], record[i, 8], record[i, 9], record[i, 10]
        iu, iv = int(np.floor(u)), int(np.floor(v))
        large = fine * coarse < one
        if 0 <= iu < width and 0 <= iv < height and depth[iv, iu] > 0:
            # The nearest of the neighbourhood, so that a point on an outline is not struck by the background beside it.
            nearest = depth[iv, iu]
            for py in range(max(iv - 1, 0), min(iv + 2, height)):
                for px in range(max(iu - 1, 0), min(iu + 2, width)):
                    if depth[py, px] > 0:
                        nearest = min(nearest, depth[py, px])
            if w * nearest > one + contradict:
                verdict[row[i]] = STRUCK
                continue
            if abs(w * depth[iv, iu] - one) < agree:
                verdict[row[i]] = REPLACED if large and still[iv, iu] else SEEN
        if large:
            continue
        u0, u1, v0, v1 = _box(u, v, root * hu, root * hv, width, height)
        for py in range(v0, v1):
            dv = np.float32(py) + half - v
            for px in range(u0, u1):
                du = np.float32(px) + half - u
                if a * du * du + two * b * du * dv + c * dv * dv > SOLID and (px != iu or py != iv):
                    continue
                if abs((w + gu * du + gv * dv) * depth[py, px] - one) < agree:
                    known[py, px] = True
    return known, verdict
