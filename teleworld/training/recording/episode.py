"""One recorded episode: stand somewhere in a map, walk, and keep every frame with its geometry.

An episode is a function of the engine version, the WAD, the map and the seed. A start that turns out poor (facing a
wall, stuck, the map's exit taken, a teleporter crossed) is thrown away and the next attempt drawn from the same seed,
so the result stays a function of the seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teleworld.training.recording import depth as tracing
from teleworld.training.recording.engine import FRICTION, UNITS_PER_METRE, DoomEngine, RawFrame
from teleworld.training.recording.manifest import CAPTION_EVERY, EpisodeArrays
from teleworld.training.recording.scene import describe
from teleworld.training.recording.wad import MapGeometry
from teleworld.training.recording.walker import Returner, Sight, Step, Walker, Wanderer
from teleworld.world.camera import pose
from teleworld.world.controls import Keys
from teleworld.world.errors import PreconditionFailed

MAX_ATTEMPTS = 60
PLAYER_RADIUS = 20.0
PLAYER_HEIGHT = 64.0
JUMP_METRES = 2.5
FLASH = 30.0


@dataclass(frozen=True)
class SceneFrame:
    """One frame with its geometry worked out; fields as in `EpisodeArrays`, plus the caption and the present yaw."""

    rgb192: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    dynamic: npt.NDArray[np.bool_]
    camera_to_world: npt.NDArray[np.float64]
    intrinsics: npt.NDArray[np.float32]
    line_of: npt.NDArray[np.int32]
    sector_of: npt.NDArray[np.int32]
    creatures: tuple[str, ...]
    sight: Sight


def resolve(raw: RawFrame, geometry: MapGeometry, previous: RawFrame | None) -> SceneFrame:
    """Works out depth, mask and camera of a frame.

    Args:
        raw: the frame.
        geometry: its map.
        previous: the frame before, to tell doors and lifts in motion; None for the first.
    """
    principal_row = tracing.CY + tracing.FY * np.tan(raw.pitch)
    eye = np.array([*raw.position, raw.angle])
    traced, line_of, sector_of, hits, counts = tracing.trace(
        geometry.segments,
        geometry.front,
        geometry.back,
        raw.floor,
        raw.ceiling,
        geometry.sector_sky,
        eye,
        principal_row,
    )
    away = [
        (sprite.x - raw.position[0]) * np.cos(raw.angle) + (sprite.y - raw.position[1]) * np.sin(raw.angle)
        for sprite in raw.sprites
    ]
    sprites, dynamic = tracing.layer_sprites(
        raw.labels,
        np.array([sprite.value for sprite in raw.sprites], np.int64),
        np.maximum(np.array(away, np.float64), 1.0),
        np.array([sprite.dynamic for sprite in raw.sprites], np.bool_),
    )
    units, _ = tracing.fuse(traced, line_of, tracing.buffer_to_units(raw.depth_buffer), sprites, hits, counts)
    if previous is not None:
        moving = (raw.floor != previous.floor) | (raw.ceiling != previous.ceiling)
        dynamic |= np.append(moving, False)[sector_of]

    metres = units / np.float32(UNITS_PER_METRE)
    yaw = np.pi / 2 - raw.angle
    x, y, z = (value / UNITS_PER_METRE for value in raw.position)
    seen = np.where(metres > 0, metres, 50.0)[tracing.HEIGHT // 3 : 2 * tracing.HEIGHT // 3]
    left, middle, right = (float(np.median(part)) for part in np.array_split(seen, 3, axis=1))
    return SceneFrame(
        rgb192=raw.rgb,
        depth=metres,
        dynamic=dynamic,
        camera_to_world=pose(x, -z, y, yaw),
        intrinsics=np.array([tracing.FX, tracing.FY, tracing.CX, principal_row], np.float32),
        line_of=line_of,
        sector_of=sector_of,
        creatures=tuple(sprite.name for sprite in raw.sprites if sprite.dynamic),
        sight=Sight((x, y), yaw, raw.pitch, (left, middle, right)),
    )


def draw_place(geometry: MapGeometry, rng: np.random.Generator) -> tuple[float, float]:
    """A random place where the player can stand: near something placed in the map, clear of walls, with head room."""
    for _ in range(1000):
        near = geometry.things[rng.integers(len(geometry.things))]
        x, y = (near + rng.normal(0.0, 96.0, 2)).tolist()
        sector = geometry.sector_at(x, y)
        if sector < 0 or geometry.sector_ceiling[sector] - geometry.sector_floor[sector] < PLAYER_HEIGHT:
            continue
        if geometry.clearance(x, y) >= PLAYER_RADIUS:
            return x, y
    raise PreconditionFailed("the map has no place to stand")


def record_episode(
    engine: DoomEngine, geometry: MapGeometry, map_name: str, seed: int, frames: int, returns: bool
) -> EpisodeArrays:
    """Records one episode.

    Args:
        engine: running, with the map loaded.
        geometry: the same map.
        map_name: part of the random state, so that equal seeds differ between maps.
        seed: of places, moves and the game.
        frames: how many to record.
        returns: walks back over its own path in the second half.

    Raises:
        PreconditionFailed: no attempt gave a usable episode.
    """
    for attempt in range(MAX_ATTEMPTS):
        rng = np.random.default_rng([zlib.crc32(map_name.encode()), seed, attempt])
        walker: Walker = Returner(rng, frames * 2 // 5) if returns else Wanderer(rng, spin=rng.random() < 0.2)
        engine.restart(
            seed=int(rng.integers(1, 2**31)),
            place=draw_place(geometry, rng),
            turn=float(rng.uniform(0, 2 * np.pi)),
            peaceful=bool(rng.random() < 0.35),
        )
        taken = _walk(engine, geometry, walker, frames)
        if taken is not None:
            return taken
    raise PreconditionFailed(f"map {map_name}, seed {seed}: {MAX_ATTEMPTS} attempts failed")


def _walk(engine: DoomEngine, geometry: MapGeometry, walker: Walker, frames: int) -> EpisodeArrays | None:
    """Frames of one attempt; None as soon as it proves poor."""
    scenes: list[SceneFrame] = []
    keys = [int(Keys.NONE)]
    captions: list[str] = []
    previous: RawFrame | None = None
    near_walls = crowded = 0
    while True:
        if engine.finished:
            return None
        raw = engine.frame()
        scene = resolve(raw, geometry, previous)
        if scenes and np.linalg.norm(scene.camera_to_world[:3, 3] - scenes[-1].camera_to_world[:3, 3]) > JUMP_METRES:
            return None
        if scenes and np.abs(_mean_colour(scene) - _mean_colour(scenes[-1])).max() > FLASH:
            return None
        if not scenes and np.median(scene.sight.openness) < 3.0:
            return None
        near_walls += max(scene.sight.openness) < 2.0
        crowded += float(scene.dynamic.mean()) > 0.5
        if near_walls > 0.2 * frames or crowded > 0.1 * frames:
            return None
        if len(scenes) % CAPTION_EVERY == 0:
            captions.append(
                describe(raw.rgb, scene.depth, scene.line_of, scene.sector_of, list(scene.creatures), geometry)
            )
        scenes.append(scene)
        if len(scenes) == frames:
            break
        step = walker.step(scene.sight)
        keys.append(int(step.keys))
        _press(engine, raw, step)
        previous = raw
    path = np.array([scene.camera_to_world[:3, 3] for scene in scenes])
    if np.linalg.norm(np.diff(path, axis=0), axis=1).sum() < 0.05 * frames:
        return None
    return _stack(scenes, keys, captions)


def _mean_colour(scene: SceneFrame) -> npt.NDArray[np.float64]:
    """`[3]` mean of a sample of the pixels. It leaps when a missile bursts in the viewer's face."""
    return np.asarray(scene.rgb192[::8, ::8].reshape(-1, 3).mean(axis=0), np.float64)


def _press(engine: DoomEngine, raw: RawFrame, step: Step) -> None:
    """Presses what moves the player by `step`, given the speed it has: over two tics friction keeps f, so
    distance = v (1 + f) + thrust (2 + f)."""
    angle = raw.angle - step.turn
    heading = np.array([np.cos(angle), np.sin(angle)])
    side = np.array([np.sin(angle), -np.cos(angle)])
    wanted = (step.forward * heading + step.right * side) * UNITS_PER_METRE
    thrust = (wanted - np.array(raw.velocity) * (1 + FRICTION)) / (2 + FRICTION)
    engine.press(float(thrust @ heading), float(thrust @ side), step.turn, step.tilt, step.use)


def _halve(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """`[H, W, 3]` u8 averaged over 2x2 blocks, halves rounded up."""
    even, odd = picture[0::2].astype(np.uint16), picture[1::2]
    rows = even + odd
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def _stack(scenes: list[SceneFrame], keys: list[int], captions: list[str]) -> EpisodeArrays:
    rgb192 = np.stack([scene.rgb192 for scene in scenes])
    return EpisodeArrays(
        rgb192=rgb192,
        rgb96=np.stack([_halve(picture) for picture in rgb192]),
        depth=np.stack([scene.depth for scene in scenes]).astype(np.float16),
        dynamic=np.packbits(np.stack([scene.dynamic for scene in scenes]), axis=-1),
        camera_to_world=np.stack([scene.camera_to_world for scene in scenes]),
        intrinsics=np.stack([scene.intrinsics for scene in scenes]),
        keys=np.array(keys, np.uint8),
        captions=tuple(captions),
    )
