"""How an episode lies on disk, and what is written beside it.

    <root>/<split>/<map>_<seed>/rgb192.npy rgb96.npy depth.npy dynamic.npy meta.npz manifest.json

Arrays are plain `.npy` files so that many readers can map them at once. The folder is filled under another name and
renamed at the end: a folder that is there is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from teleworld.world.errors import InvalidInput, NotFound

MANIFEST = "manifest.json"
CAPTION_EVERY = 35
VIDEO_ARRAYS = ("rgb192", "rgb96", "depth", "dynamic")
META_ARRAYS = ("camera_to_world", "intrinsics", "keys")


@dataclass(frozen=True)
class EpisodeArrays:
    """Everything one episode recorded, T frames.

    Attributes:
        rgb192: `[T, 192, 320, 3]` u8.
        rgb96: `[T, 96, 160, 3]` u8, the 2x2 average of `rgb192`.
        depth: `[T, 96, 160]` f16, z-depth in metres, 0 where unknown (sky).
        dynamic: `[T, 96, 20]` u8, bits (most significant first) of the mask of moving things.
        camera_to_world: `[T, 4, 4]` f64, OpenCV axes, world y down, metres.
        intrinsics: `[T, 4]` f32, (fx, fy, cx, cy) in pixels at 96x160.
        keys: `[T]` u8, the keys held on the way into each frame (see `Keys`).
        captions: one sentence for each run of `CAPTION_EVERY` frames.
    """

    rgb192: npt.NDArray[np.uint8]
    rgb96: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float16]
    dynamic: npt.NDArray[np.uint8]
    camera_to_world: npt.NDArray[np.float64]
    intrinsics: npt.NDArray[np.float32]
    keys: npt.NDArray[np.uint8]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What an episode is and where it came from.

    Attributes:
        map: the map's name in its WAD.
        seed: of the episode.
        split: `train`, `E` (other episodes of the training maps), `U` (maps never trained on), `L` (long walks).
        frames: number of frames.
        engine: name and version of the engine.
        wad_sha256: of the WAD file.
        sha256: of the recorded arrays, in the order of `VIDEO_ARRAYS` and `META_ARRAYS`.
        mean_speed: metres a frame.
        frames_per_caption: each caption covers so many frames.
        captions: sentences, in order.
    """

    map: str
    seed: int
    split: str
    frames: int
    engine: str
    wad_sha256: str
    sha256: str
    mean_speed: float
    frames_per_caption: int
    captions: tuple[str, ...]


def arrays_digest(arrays: EpisodeArrays) -> str:
    """SHA-256 over all arrays of an episode."""
    digest = hashlib.sha256()
    for name in VIDEO_ARRAYS + META_ARRAYS:
        digest.update(np.ascontiguousarray(getattr(arrays, name)).data)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mean_speed(arrays: EpisodeArrays) -> float:
    """Mean distance between neighbouring cameras, metres."""
    steps = np.diff(arrays.camera_to_world[:, :3, 3], axis=0)
    return float(np.linalg.norm(steps, axis=1).mean()) if len(steps) else 0.0


def write_episode(folder: Path, arrays: EpisodeArrays, manifest: Manifest) -> None:
    """Writes an episode; the folder appears only when it is complete."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in VIDEO_ARRAYS:
        np.save(partial / f"{name}.npy", getattr(arrays, name))
    np.savez(partial / "meta.npz", **{name: getattr(arrays, name) for name in META_ARRAYS})
    (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, folder)


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of an episode.

    Raises:
        NotFound: the folder holds no manifest.
        InvalidInput: the manifest lacks a field or has one too many.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise NotFound(f"episode {folder.name}")
    fields = json.loads(path.read_text(encoding="utf-8"))
    try:
        return Manifest(**{**fields, "captions": tuple(fields.get("captions", ()))})
    except TypeError as error:
        raise InvalidInput("manifest", str(error)) from error
