"""Overlaid text, watermarks and subtitles, found by PaddleOCR's detector and recogniser (RapidOCR, which carries both)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from teleworld.curation.clips import Clip
from teleworld.curation.pipeline import Decision, Verdict


@dataclass(frozen=True)
class TextOverlay:
    """samples: frames looked at. confidence: least score of a line that counts, and letters: least length of it. area: largest
    share of the picture that text may cover, in the median frame, so that a street sign passing by does no harm."""

    samples: int = 5
    width: int = 640
    confidence: float = 0.6
    letters: int = 3
    area: float = 0.004

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Reject clips whose usual frame carries text."""
        pictures, _ = clip.read(self.samples, self.width)
        shares, words = [], []
        for picture in pictures:
            lines = [
                (box, text)
                for box, text, score in _engine()(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[0] or []
                if float(score) >= self.confidence and len(text.strip()) >= self.letters
            ]
            covered = sum(cv2.contourArea(np.array(box, np.float32)) for box, _ in lines)
            shares.append(covered / (picture.shape[0] * picture.shape[1]))
            words += [text for _, text in lines]
        share = float(np.median(shares))
        verdict = Verdict.REJECT if share > self.area else Verdict.KEEP
        reason = f"text: {words[0][:40]!r}" if verdict is Verdict.REJECT and words else ""
        return Decision(verdict, {"area": share, "lines": len(words) / len(pictures)}, reason)


@lru_cache(maxsize=1)
def _engine() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR()
