"""Camera trajectories: the recording's own, or structure from motion (COLMAP) away from what moves.

Writes `cameras.npz`: `frames` [n] (indices in the clip), `camera_to_world` float64 [n, 4, 4] (OpenCV axes) and `intrinsics`
float64 [n, 4] (fx, fy, cx, cy at the clip's own size). COLMAP's unit of length is its own; a recording's is the metre.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from teleworld.curation.clips import Clip
from teleworld.curation.pipeline import Decision, Verdict
from teleworld.curation.stages.masks import FILE as MASKS
from teleworld.curation.stages.masks import read_masks

FILE = "cameras.npz"


@dataclass(frozen=True)
class Cameras:
    """every: seconds between frames that are registered. width: of the pictures that COLMAP sees. registered: least share of
    them that it must place. focal: fx and fy in picture widths, where the camera is known; else they are estimated, which a
    short walk leaves uncertain."""

    every: float = 0.25
    width: int = 480
    registered: float = 0.6
    focal: tuple[float, float] | None = None

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Write the trajectory; reject a clip whose camera cannot be placed."""
        if (episode := clip.episode) is not None:
            path = episode.cameras[clip.span]
            np.savez(
                folder / FILE,
                frames=np.arange(clip.frames),
                camera_to_world=path.camera_to_world,
                intrinsics=path.intrinsics,
            )
            return Decision(Verdict.KEEP, {"registered": 1.0})
        count = max(3, round(clip.seconds / self.every))
        pictures, at = clip.read(count, self.width)
        scale = clip.read(1)[0].shape[2] / pictures.shape[2]
        placed = _structure_from_motion(pictures, self._background(folder, at, pictures.shape[1:3]), self.focal)
        share = len(placed) / len(at)
        if share < self.registered:
            return Decision(Verdict.REJECT, {"registered": share}, "the camera's path cannot be found")
        order = sorted(placed)
        np.savez(
            folder / FILE,
            frames=at[order],
            camera_to_world=np.stack([placed[number][0] for number in order]),
            intrinsics=np.stack([placed[number][1] * scale for number in order]),
        )
        return Decision(Verdict.KEEP, {"registered": share})

    @staticmethod
    def _background(folder: Path, at: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """uint8 [n, H, W], 255 where COLMAP may look; None without masks."""
        if not (folder / MASKS).exists():
            return None
        still = (~read_masks(folder)[at]).astype(np.uint8) * 255
        return np.stack([cv2.resize(one, (size[1], size[0]), interpolation=cv2.INTER_NEAREST) for one in still])


def _structure_from_motion(
    pictures: NDArray[np.uint8], background: NDArray[np.uint8] | None, focal: tuple[float, float] | None
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(camera_to_world, intrinsics) of the pictures that were placed, by number.

    One pinhole camera for all, refined unless `focal` is known.
    """
    import pycolmap

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "pictures").mkdir()
        (root / "masks").mkdir()
        for number, picture in enumerate(pictures):
            cv2.imwrite(str(root / "pictures" / f"{number:05d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            if background is not None:
                cv2.imwrite(str(root / "masks" / f"{number:05d}.png.png"), background[number])
        reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE")
        if background is not None:
            reader.mask_path = str(root / "masks")
        mapping = pycolmap.IncrementalPipelineOptions()
        if focal is not None:
            height, width = pictures.shape[1:3]
            reader.camera_params = f"{focal[0] * width},{focal[1] * width},{width / 2},{height / 2}"
            mapping.ba_refine_focal_length = False
        database = root / "database.db"
        pycolmap.logging.minloglevel = pycolmap.logging.Level.WARNING.value
        pycolmap.set_random_seed(0)
        pycolmap.extract_features(
            database, root / "pictures", camera_mode=pycolmap.CameraMode.SINGLE, reader_options=reader
        )
        pycolmap.match_sequential(database)
        models = pycolmap.incremental_mapping(database, root / "pictures", root / "model", mapping)
        if not models:
            return {}
        best = max(models.values(), key=lambda model: model.num_reg_images())
        placed = {}
        for image in best.images.values():
            if image.has_pose:
                pose = np.eye(4)
                pose[:3] = image.cam_from_world().inverse().matrix()
                placed[int(Path(image.name).stem)] = (pose, np.array(image.camera.params, np.float64))
        return placed
