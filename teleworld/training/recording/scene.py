"""Captions of recorded frames, put together from what the map itself says.

There is no human caption for these pictures. But the map names its textures, the trace tells which of them fill the
picture, and the picture tells the light: enough for one plain sentence. The texture names are the classic Doom ones
that Freedoom keeps; a name that no entry knows is left out of the sentence rather than guessed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from teleworld.training.recording.depth import FLAT
from teleworld.training.recording.wad import MapGeometry

_WALLS = {
    "STAR": "grey metal", "BROWN": "brown stone", "BRNSM": "brown metal", "BRNPOI": "brown metal", "BRICK": "brick",
    "BRONZE": "bronze metal", "BRN": "brown metal", "COMP": "computer panel", "TEK": "tech panel",
    "METAL": "rusty metal", "MARB": "marble", "WOOD": "wooden", "SLAD": "grey slab", "LITE": "lit panel",
    "ROCK": "rock", "ASH": "ash rock", "GSTONE": "green stone", "GSTV": "green stone", "STONE": "grey stone",
    "PIPE": "pipe-covered", "SUPPORT": "steel girder", "DOOR": "metal door", "BIGDOOR": "metal door",
    "TAN": "tan stone", "ZIM": "mossy stone", "CEMENT": "concrete", "CEM": "concrete", "SHAWN": "steel",
    "SILVER": "silver metal", "GRAY": "grey concrete", "ICKWALL": "grey concrete", "SPACE": "tech panel",
    "NUKE": "slime-stained", "SP": "carved stone", "PANEL": "wooden panel", "BFALL": "blood fall", "CRATE": "crate",
    "MODWALL": "tiled stone", "STUCCO": "plaster", "BIGBRIK": "large brick", "BLAK": "black metal", "PLAT": "steel",
    "STEP": "stepped metal", "SW": "switch panel",
}  # fmt: skip
_FLOORS = {
    "GRASS": "grass", "NUKAGE": "green slime", "FWATER": "water", "LAVA": "lava", "BLOOD": "blood",
    "SLIME": "slime", "SLIME1": "concrete", "RROCK": "rock", "MFLR": "stone", "FLOOR0": "metal", "FLOOR1": "carpet",
    "FLOOR3": "metal", "FLOOR4": "tile", "FLOOR5": "tile", "FLOOR6": "dark", "FLOOR7": "tile", "FLAT1": "concrete",
    "FLAT2": "metal", "FLAT5": "stone", "FLAT": "stone", "CEIL": "panelled", "STEP": "stepped", "DEM": "marble",
    "TLITE": "lit", "GATE": "portal", "GRN": "green stone",
}  # fmt: skip


def _lookup(name: str, table: dict[str, str]) -> str | None:
    matches = [prefix for prefix in table if name.startswith(prefix)]
    return table[max(matches, key=len)] if matches else None


def _commonest(names: list[str], weights: npt.NDArray[np.int64], table: dict[str, str]) -> str | None:
    counter: Counter[str] = Counter()
    for name, weight in zip(names, weights.tolist(), strict=True):
        word = _lookup(name, table)
        if word is not None:
            counter[word] += weight
    return counter.most_common(1)[0][0] if counter else None


def describe(
    rgb: npt.NDArray[np.uint8],
    depth: npt.NDArray[np.float32],
    line_of: npt.NDArray[np.int32],
    sector_of: npt.NDArray[np.int32],
    creatures: list[str],
    geometry: MapGeometry,
) -> str:
    """One sentence about one frame.

    Args:
        rgb: `[192, 320, 3]` u8.
        depth: `[96, 160]` metres, 0 for sky.
        line_of: `[96, 160]` the wall each pixel shows (see `trace`).
        sector_of: `[96, 160]` its sector.
        creatures: names of the moving objects in sight.
        geometry: the map.
    """
    lines, line_weights = np.unique(line_of[line_of >= 0], return_counts=True)
    wall_names = [next((name for name in geometry.wall_textures[i] if name != "-"), "-") for i in lines.tolist()]
    below = sector_of[depth.shape[0] // 2 :]
    floors, floor_weights = np.unique(below[line_of[depth.shape[0] // 2 :] == FLAT], return_counts=True)
    wall = _commonest(wall_names, line_weights, _WALLS)
    floor = _commonest([geometry.floor_textures[i] for i in floors.tolist()], floor_weights, _FLOORS)

    brightness = float(rgb.mean())
    light = "dark" if brightness < 32 else "dim" if brightness < 60 else "bright"
    reach = float(np.median(depth[depth > 0])) if (depth > 0).any() else 0.0
    open_sky = float((depth == 0).mean()) > 0.03
    place = "outdoor yard" if open_sky else "close corner" if reach < 2 else "corridor" if reach < 5 else "hall"
    parts = [f"{wall} walls"] if wall else []
    parts += [f"a {floor} floor"] if floor else []
    sentence = f"A {light} {place}"
    sentence += f" with {' and '.join(parts)}" if parts else ""
    sentence += ", under the open sky" if open_sky else ""
    known = Counter(creatures).most_common(1)
    return sentence + (f", and a {_plain(known[0][0])} in sight." if known else ".")


def _plain(name: str) -> str:
    """`ShotgunGuy` as `shotgun guy`."""
    return "".join(f" {c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
