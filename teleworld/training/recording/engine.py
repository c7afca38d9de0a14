"""The ViZDoom engine as a camera: load a map, stand somewhere, press controls, read exact frames.

Everything that is not the world is switched off: weapon, HUD, crosshair, messages, view bob, damage and pickup
tints. The player cannot die. Monsters live, so the pictures hold moving things.

An engine object is one process of the game; it is not thread safe. Runs repeat exactly for the same engine version,
WAD, map and seed, since the engine advances only when told to.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import vizdoom

from teleworld.world.errors import InvalidInput, PreconditionFailed

UNITS_PER_METRE = 32.0
TICS_PER_FRAME = 2
FRAMES_PER_SECOND = 35.0 / TICS_PER_FRAME
CROP = slice(4, 196)
THRUST_PER_TIC = 1.0 / 32.0
FRICTION = 0.90625
MAX_THRUST_DELTA = 50.0

_CONSOLE = (
    "+freelook 1 +sv_cheats 1 +movebob 0 +stillbob 0 +con_midtime 0 +con_notifytime 0 "
    "+blood_fade_scalar 0 +pickup_fade_scalar 0 +underwater_fade_scalar 0 +cl_showsecretmessage 0 +show_messages 0"
)
# Weakens the darkening with distance, so that a surface keeps its colour when the camera moves.
_VISIBILITY = "r_visibility 24"
# The engine's own display gamma does not reach the screen buffer; Freedoom is too dark to look at without one.
GAMMA = 1.3
_BRIGHTEN = np.round(255 * (np.arange(256) / 255) ** (1 / GAMMA)).astype(np.uint8)
# What stands still wherever the map puts it. All other kinds (monsters, missiles, puffs, fog) count as dynamic.
_STATIC_CATEGORIES = frozenset(
    {"Self", "Health", "Armor", "Ammo", "Weapon", "Key", "Powerup"}
    | {"Decoration", "Vegetation", "LightSource", "Gore", "Hazard"}
)


@dataclass(frozen=True)
class Sprite:
    """A visible object: its value in the label buffer, name, place in map units, and whether it may move."""

    value: int
    name: str
    x: float
    y: float
    dynamic: bool


@dataclass(frozen=True)
class RawFrame:
    """One rendered frame, before any geometry is worked out.

    Attributes:
        rgb: `[192, 320, 3]` u8.
        depth_buffer: `[192, 320]` u8, the engine's coarse z-depth.
        labels: `[192, 320]` u8, 0 wall, 1 floor or ceiling, from 2 on sprites.
        sprites: the visible objects.
        floor: `[S]` f64, floor heights now, map units.
        ceiling: `[S]` f64, ceiling heights now, map units.
        position: (x, y, z) of the camera, map units.
        angle: radians, counter-clockwise from east.
        pitch: radians, positive when looking up.
        velocity: (x, y) map units a tic.
    """

    rgb: npt.NDArray[np.uint8]
    depth_buffer: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    sprites: tuple[Sprite, ...]
    floor: npt.NDArray[np.float64]
    ceiling: npt.NDArray[np.float64]
    position: tuple[float, float, float]
    angle: float
    pitch: float
    velocity: tuple[float, float]


def wad_path(map_name: str) -> Path:
    """The Freedoom WAD shipped with the engine that holds the map: `E1M1` in freedoom1, `MAP01` in freedoom2."""
    return Path(vizdoom.__file__).parent / ("freedoom1.wad" if map_name.startswith("E") else "freedoom2.wad")


def engine_version() -> str:
    """Name and version of the engine, part of what an episode is a function of."""
    return f"vizdoom-{vizdoom.__version__}"


class DoomEngine:
    """One running game. Use as a context manager.

    Raises:
        InvalidInput: `map` is not in the WAD.
    """

    _VARIABLES = ("CAMERA_POSITION_X", "CAMERA_POSITION_Y", "CAMERA_POSITION_Z", "CAMERA_ANGLE", "CAMERA_PITCH",
                  "VELOCITY_X", "VELOCITY_Y")  # fmt: skip
    _BUTTONS = ("MOVE_FORWARD_BACKWARD_DELTA", "MOVE_LEFT_RIGHT_DELTA", "TURN_LEFT_RIGHT_DELTA",
                "LOOK_UP_DOWN_DELTA", "USE")  # fmt: skip

    def __init__(self, map_name: str, skill: int = 2) -> None:
        wad = wad_path(map_name)
        if not wad.exists():
            raise InvalidInput("map", f"no WAD holds {map_name!r}")
        self._settings = tempfile.TemporaryDirectory(prefix="teleworld-engine-")
        game = vizdoom.DoomGame()
        game.set_doom_config_path(str(Path(self._settings.name) / "engine.ini"))
        game.set_doom_game_path(str(wad))
        game.set_doom_scenario_path(str(wad))
        game.set_doom_map(map_name)
        game.set_doom_skill(skill)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_console_enabled(False)
        game.set_episode_timeout(0)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X200)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        for part in ("hud", "minimal_hud", "crosshair", "weapon", "decals", "particles", "messages", "screen_flashes"):
            getattr(game, f"set_render_{part}")(False)
        game.set_depth_buffer_enabled(True)
        game.set_labels_buffer_enabled(True)
        game.set_sectors_info_enabled(True)
        game.set_available_buttons([getattr(vizdoom.Button, name) for name in self._BUTTONS])
        game.set_available_game_variables([getattr(vizdoom.GameVariable, name) for name in self._VARIABLES])
        game.add_game_args(_CONSOLE)
        game.init()
        self._game = game

    def __enter__(self) -> DoomEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._game.close()
        self._settings.cleanup()
        # The engine leaves this empty folder in the working directory and has no option against it.
        with contextlib.suppress(OSError):
            Path("_vizdoom").rmdir()

    def restart(self, seed: int, place: tuple[float, float], turn: float, peaceful: bool) -> None:
        """Starts the map anew and stands the player at a place.

        Args:
            seed: of the game's random numbers.
            place: (x, y) in map units; it must lie inside the map.
            turn: radians to turn right from the map's own starting angle.
            peaceful: monsters ignore the player (they stay where they are).
        """
        self._game.set_seed(seed)
        self._game.new_episode()
        self._game.send_game_command("god")
        self._game.send_game_command(_VISIBILITY)
        if peaceful:
            self._game.send_game_command("notarget")
        self._game.send_game_command(f"warp {place[0]:.1f} {place[1]:.1f}")
        self._game.make_action([0.0, 0.0, float(np.degrees(turn)), 0.0, 0.0], 1)
        self._game.make_action([0.0] * 5, 6)

    def press(self, forward: float, right: float, turn: float, tilt: float, use: bool) -> None:
        """Holds controls for one frame.

        Args:
            forward: thrust in map units a tic, negative for backward.
            right: thrust to the right, likewise.
            turn: radians over the frame, positive to the right.
            tilt: radians over the frame, positive upward.
            use: presses the use key (opens doors).
        """
        limit = MAX_THRUST_DELTA
        forward_delta = float(np.clip(forward / THRUST_PER_TIC, -limit, limit))
        right_delta = float(np.clip(right / THRUST_PER_TIC, -limit, limit))
        per_tic = [np.degrees(turn) / TICS_PER_FRAME, np.degrees(tilt) / TICS_PER_FRAME]
        self._game.make_action([forward_delta, right_delta, *map(float, per_tic), float(use)], TICS_PER_FRAME)

    @property
    def finished(self) -> bool:
        """Whether the map has ended (an exit was taken); no more frames come."""
        return bool(self._game.is_episode_finished())

    def frame(self) -> RawFrame:
        """The picture and the geometry facts of the present moment.

        Raises:
            PreconditionFailed: the map has ended.
        """
        state = self._game.get_state()
        if state is None or state.depth_buffer is None or state.labels_buffer is None or state.sectors is None:
            raise PreconditionFailed("the map has ended; no more frames come")
        if state.game_variables is None or state.labels is None:
            raise PreconditionFailed("the engine reports no variables or labels")
        x, y, z, angle, pitch, velocity_x, velocity_y = (float(v) for v in state.game_variables)
        sprites = tuple(
            Sprite(
                label.value, label.object_name, label.object_position_x, label.object_position_y,
                label.object_category not in _STATIC_CATEGORIES,
            )
            for label in state.labels
        )  # fmt: skip
        return RawFrame(
            rgb=_BRIGHTEN[state.screen_buffer[CROP]],
            depth_buffer=state.depth_buffer[CROP].copy(),
            labels=state.labels_buffer[CROP].copy(),
            sprites=sprites,
            floor=np.array([sector.floor_height for sector in state.sectors], np.float64),
            ceiling=np.array([sector.ceiling_height for sector in state.sectors], np.float64),
            position=(x, y, z),
            angle=float(np.radians(angle)),
            pitch=-float(np.radians(pitch)),
            velocity=(velocity_x, velocity_y),
        )
