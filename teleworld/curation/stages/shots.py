"""Cuts a source at its shot boundaries (PySceneDetect), and long shots into clips of a bounded length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from scenedetect import AdaptiveDetector, detect

from teleworld.curation.clips import Clip


@dataclass(frozen=True)
class Shots:
    """threshold: of the adaptive detector, how far a frame must stand out of its neighbours. shortest, longest: seconds."""

    threshold: float = 3.0
    shortest: float = 2.0
    longest: float = 20.0

    def split(self, source: Clip) -> list[Clip]:
        """Clips of one shot each. A recording is one shot by construction."""
        return [clip for shot in self._shots(source) for clip in self._pieces(shot)]

    def _shots(self, source: Clip) -> list[Clip]:
        if source.episode is not None:
            return [source]
        found = detect(str(source.source), AdaptiveDetector(adaptive_threshold=self.threshold), start_in_scene=True)
        spans = [(first.frame_num, last.frame_num) for first, last in found]
        return [replace(source, start=first, frames=last - first) for first, last in spans]

    def _pieces(self, shot: Clip) -> Iterator[Clip]:
        size = max(1, round(self.longest * shot.fps))
        for first in range(0, shot.frames, size):
            piece = replace(shot, start=shot.start + first, frames=min(size, shot.frames - first))
            if piece.seconds >= self.shortest:
                yield piece
