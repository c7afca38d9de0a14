"""Static geometry of one map, read from a WAD file.

The engine reports positions, sector heights and an 8-bit depth buffer, but neither the sky nor which sector
lies on which side of a wall. Both stand in the WAD's own tables. This reader knows the classic binary map format
(THINGS, LINEDEFS, SIDEDEFS, VERTEXES, SECTORS) that all Freedoom maps use, and nothing else: UDMF and Hexen maps
are refused. Sector heights read here are the ones at the start of the map; doors and lifts move, so whoever traces
a frame must take the heights the engine reports for that frame.

All lengths are in map units (32 to the metre), x east, y north, z up.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleworld.world.errors import InvalidInput

SKY_TEXTURE = "F_SKY1"
NO_SIDE = 0xFFFF
ML_BLOCKING = 0x0001


@dataclass(frozen=True)
class MapGeometry:
    """One map's lines, sectors and things.

    Attributes:
        segments: `[L, 4]` f64, (x1, y1, x2, y2) of every line; its front side lies to the right of its direction.
        front: `[L]` i32, sector in front of the line.
        back: `[L]` i32, sector behind it, -1 where the line is one-sided.
        blocking: `[L]` bool, lines that stop the player whatever the heights.
        wall_textures: per line, the (upper, middle, lower) texture names of its front side.
        sector_floor: `[S]` f64, floor heights at the start of the map.
        sector_ceiling: `[S]` f64, ceiling heights at the start of the map.
        sector_sky: `[S]` bool, sectors whose ceiling is the sky.
        floor_textures: per sector, the name of its floor texture.
        things: `[N, 2]` f64, positions of everything placed in the map (monsters, items, player starts).
    """

    segments: npt.NDArray[np.float64]
    front: npt.NDArray[np.int32]
    back: npt.NDArray[np.int32]
    blocking: npt.NDArray[np.bool_]
    wall_textures: tuple[tuple[str, str, str], ...]
    sector_floor: npt.NDArray[np.float64]
    sector_ceiling: npt.NDArray[np.float64]
    sector_sky: npt.NDArray[np.bool_]
    floor_textures: tuple[str, ...]
    things: npt.NDArray[np.float64]

    def sector_at(self, x: float, y: float) -> int:
        """Index of the sector that holds the point, -1 where the point lies outside the map.

        Casts a ray to the east and reads the near side of the first line it meets.
        """
        x1, y1, x2, y2 = self.segments.T
        crosses = (y1 > y) != (y2 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            hit_x = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
        hit_x = np.where(crosses & (hit_x > x), hit_x, np.inf)
        if hit_x.size == 0 or not np.isfinite(hit_x.min()):
            return -1
        nearest = int(np.argmin(hit_x))
        side = (x2[nearest] - x1[nearest]) * (y - y1[nearest]) - (y2[nearest] - y1[nearest]) * (x - x1[nearest])
        return int(self.front[nearest] if side < 0 else self.back[nearest])

    def clearance(self, x: float, y: float) -> float:
        """Distance from the point to the nearest line that stops a walking player, in map units."""
        stop = self.blocking | (self.back < 0)
        two_sided = ~stop
        front, back = self.front[two_sided], self.back[two_sided]
        step = np.abs(self.sector_floor[front] - self.sector_floor[back])
        opening = np.minimum(self.sector_ceiling[front], self.sector_ceiling[back]) - np.maximum(
            self.sector_floor[front], self.sector_floor[back]
        )
        stop[two_sided] |= (step > 24) | (opening < 56)
        ax, ay, bx, by = self.segments[stop].T
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / np.maximum(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
        return float(np.min(np.hypot(ax + along * dx - x, ay + along * dy - y)))


def _lumps(data: bytes, map_name: str, path: Path) -> dict[str, bytes]:
    """The lumps that follow the map's marker, by name."""
    count, directory = struct.unpack_from("<ii", data, 4)
    entries = [struct.unpack_from("<ii8s", data, directory + 16 * i) for i in range(count)]
    names = [_name(raw) for _, _, raw in entries]
    if map_name not in names:
        raise InvalidInput("map", f"{map_name!r} is not in {path.name}")
    start = names.index(map_name) + 1
    return {names[i]: data[entries[i][0] : entries[i][0] + entries[i][1]] for i in range(start, min(start + 10, count))}


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace").upper()


@lru_cache(maxsize=16)
def read_map(path: Path, map_name: str) -> MapGeometry:
    """Reads one map.

    Args:
        path: the WAD file.
        map_name: its marker, such as `MAP01` or `E1M1`.

    Raises:
        InvalidInput: the file is no WAD, lacks the map, or the map is not in the binary Doom format.
    """
    data = path.read_bytes()
    if data[:4] not in (b"IWAD", b"PWAD"):
        raise InvalidInput("path", f"{path.name} is not a WAD file")
    lumps = _lumps(data, map_name, path)
    needed = ("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SECTORS")
    missing = [name for name in needed if name not in lumps]
    if missing or "BEHAVIOR" in lumps:
        raise InvalidInput("map", f"{map_name!r} is not in the binary Doom format")

    vertices = np.frombuffer(lumps["VERTEXES"], "<i2").reshape(-1, 2).astype(np.float64)
    lines = np.frombuffer(lumps["LINEDEFS"], "<u2").reshape(-1, 7).astype(np.int64)
    side_type = np.dtype([("offset", "<i2", 2), ("upper", "S8"), ("lower", "S8"), ("middle", "S8"), ("sector", "<u2")])
    sides = np.frombuffer(lumps["SIDEDEFS"], side_type)
    sector_type = np.dtype(
        [("floor", "<i2"), ("ceiling", "<i2"), ("ftex", "S8"), ("ctex", "S8"), ("light", "<i2"), ("rest", "<i2", 2)]
    )
    sectors = np.frombuffer(lumps["SECTORS"], sector_type)
    things = np.frombuffer(lumps["THINGS"], "<i2").reshape(-1, 5)[:, :2].astype(np.float64)

    right, left = lines[:, 5], lines[:, 6]
    side_sector = sides["sector"].astype(np.int32)
    return MapGeometry(
        segments=np.concatenate([vertices[lines[:, 0]], vertices[lines[:, 1]]], axis=1),
        front=side_sector[right],
        back=np.where(left == NO_SIDE, -1, side_sector[np.where(left == NO_SIDE, 0, left)]).astype(np.int32),
        blocking=(lines[:, 2] & ML_BLOCKING) != 0,
        wall_textures=tuple(
            (_name(sides["upper"][i]), _name(sides["middle"][i]), _name(sides["lower"][i])) for i in right
        ),
        sector_floor=sectors["floor"].astype(np.float64),
        sector_ceiling=sectors["ceiling"].astype(np.float64),
        sector_sky=np.array([_name(name) == SKY_TEXTURE for name in sectors["ctex"]]),
        floor_textures=tuple(_name(name) for name in sectors["ftex"]),
        things=things,
    )
