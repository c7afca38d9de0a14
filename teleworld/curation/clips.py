"""What is curated: spans of video files, or of recordings of the game engine, which know their own truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from teleworld.training.dataset import Episode
from teleworld.training.recording.manifest import MANIFEST
from teleworld.world.errors import InvalidInput, NotFound

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi")
RECORDING_FPS = 17.5


@dataclass(frozen=True)
class Clip:
    """Frames `start` to `start + frames` of `source`, a video file or the folder of a recorded episode."""

    source: Path
    start: int
    frames: int
    fps: float

    @property
    def name(self) -> str:
        """Unique among the clips of a run: source and span."""
        return f"{self.source.stem}-{self.start:06d}-{self.frames:05d}"

    @property
    def seconds(self) -> float:
        """Length."""
        return self.frames / self.fps

    @property
    def episode(self) -> Episode | None:
        """The recording behind it, which has true cameras, depth, masks and captions; None for a video file."""
        return _episode(self.source) if self.source.is_dir() else None

    @property
    def span(self) -> slice:
        """Its frames in the source."""
        return slice(self.start, self.start + self.frames)

    def read(self, count: int | None = None, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`count` evenly spaced frames (all by default) as uint8 [n, H, W, 3] RGB, and their indices [n] in the clip.

        width: scale to it, keeping the aspect. Raises InvalidInput when the file ends before the clip does.
        """
        wanted = (
            np.arange(self.frames) if count is None else np.unique(np.linspace(0, self.frames - 1, count).astype(int))
        )
        if (episode := self.episode) is not None:
            pictures = np.array(episode.rgb[wanted + self.start])
        else:
            pictures = np.stack(list(_decode(self.source, wanted + self.start)))
        if width is not None and width != pictures.shape[2]:
            size = (width, 2 * round(pictures.shape[1] * width / pictures.shape[2] / 2))
            pictures = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures])
        return pictures, wanted


def sources(root: Path) -> list[Path]:
    """Every video file and recorded episode below `root`, in order. Raises NotFound if there is none."""
    found = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    found += [path.parent for path in root.rglob(MANIFEST) if not path.parent.name.startswith(".")]
    if not found:
        raise NotFound(f"video or recording below {root}")
    return sorted(found)


def whole(source: Path) -> Clip:
    """All of a source as one clip. Raises InvalidInput naming the source if it cannot be read."""
    if source.is_dir():
        return Clip(source, 0, len(_episode(source)), RECORDING_FPS)
    capture = cv2.VideoCapture(str(source))
    try:
        frames, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
        if not capture.isOpened() or frames < 1 or not 0 < fps < 1000:
            raise InvalidInput("source", f"{source.name} cannot be read as a video")
    finally:
        capture.release()
    return Clip(source, 0, frames, fps)


@lru_cache(maxsize=64)
def _episode(folder: Path) -> Episode:
    return Episode(folder)


def _decode(file: Path, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The frames with the numbers `wanted` (ascending), RGB. Decodes through, since seeking by frame is not exact."""
    capture = cv2.VideoCapture(str(file))
    try:
        number, following = 0, iter(wanted.tolist())
        target = next(following)
        while target is not None:
            if not capture.grab():
                raise InvalidInput("source", f"{file.name} ends before frame {target}")
            if number == target:
                yield cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
                target = next(following, None)
            number += 1
    finally:
        capture.release()
