"""The field as PLY (binary little endian), in pieces, for viewers and for other tools.

World frame, metres, y down; properties x y z, red green blue, radius (metres) and frame (the global pixel frame in which
the point was seen).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from teleworld.memory.points import PointCloud

VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("radius", "<f4"),
        ("frame", "<i4"),
    ]
)
_NAMES = {"f4": "float", "u1": "uchar", "i4": "int"}


def ply(clouds: tuple[PointCloud, ...], points_per_chunk: int = 16_384) -> Iterator[bytes]:
    """A PLY file of the clouds, one after the other: the header, then chunks of at most `points_per_chunk` points."""
    properties = (f"property {_NAMES[VERTEX[name].str[1:]]} {name}" for name in VERTEX.names or ())
    yield "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            "comment metres, y down",
            f"element vertex {sum(len(cloud) for cloud in clouds)}",
            *properties,
            "end_header\n",
        ]
    ).encode("ascii")
    for cloud in clouds:
        for start in range(0, len(cloud), points_per_chunk):
            part = cloud.select(slice(start, start + points_per_chunk))
            rows = np.empty(len(part), VERTEX)
            rows["x"], rows["y"], rows["z"] = part.positions.T
            rows["red"], rows["green"], rows["blue"] = part.colours.T
            rows["radius"], rows["frame"] = part.radius, part.frame
            yield rows.tobytes()
