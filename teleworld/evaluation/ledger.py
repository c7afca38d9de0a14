"""What trials found, kept on disk, so that an evaluation which was stopped goes on where it was.

A finding belongs to the weights, the recordings and the code that made it. The folder's name is a digest of all three, so
that nothing old is taken for new unless it is asked for. Files are whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

import teleworld
from teleworld.evaluation.trials import Finding, Trial
from teleworld.training.dataset import load_split

# What a finding depends on: not the services, nor how findings are shown, nor training, which makes the weights.
PACKAGES = ("evaluation", "generation", "memory", "models", "world")
SHOWS = {"cards.py", "ledger.py", "report.py", "rows.py", "table.py"}


class Ledger:
    """Findings by trial under `root`. subject: what they are about (digests of models and data).

    trust: take findings of the same subject by whatever code, the newest first.
    """

    def __init__(self, root: Path, subject: tuple[str, ...], *, trust: bool = False) -> None:
        self._subject = hashlib.sha256(":".join(subject).encode()).hexdigest()[:16]
        self.folder = root / f"{self._subject}-{code_digest()[:16]}"
        self._trust = trust

    def _file(self, trial: Trial) -> Path | None:
        files = [self.folder / f"{trial.name}.json"]
        if self._trust:
            others = self.folder.parent.glob(f"{self._subject}-*/{trial.name}.json")
            files += sorted(others, key=lambda file: -file.stat().st_mtime)
        return next((file for file in files if file.is_file()), None)

    def load(self, trial: Trial) -> Finding | None:
        """What is known of a trial."""
        file = self._file(trial)
        if file is None:
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
        picture, arrays = file.with_suffix(".png"), file.with_suffix(".npz")
        return Finding(
            {name: float("nan") if value is None else value for name, value in found["values"].items()},
            found["series"],
            dict(np.load(arrays)) if arrays.is_file() else {},
            np.array(Image.open(picture)) if picture.is_file() else None,
            found["caption"],
        )

    def keep(self, trial: Trial, found: Finding) -> None:
        """Write a finding down; the JSON file, which says that it is there, last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{trial.name}.json"
        if found.arrays:
            np.savez(file.with_suffix(".npz"), **found.arrays)  # type: ignore[arg-type]
        if found.strip is not None:
            Image.fromarray(found.strip).save(file.with_suffix(".png"))
        values = {name: float(value) if np.isfinite(value) else None for name, value in found.values.items()}
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(
            json.dumps({"values": values, "series": found.series, "caption": found.caption}), encoding="utf-8"
        )
        os.replace(temporary, file)


def data_digest(data: Path) -> str:
    """sha256 over the recordings of the evaluation splits, by their manifests."""
    episodes = [episode for split in ("E", "U", "L") for episode in load_split(data, split)]
    return hashlib.sha256(":".join(episode.manifest.sha256 for episode in episodes).encode()).hexdigest()


def code_digest() -> str:
    """sha256 over the source files whose change may change a finding."""
    root, digest = Path(teleworld.__file__).parent, hashlib.sha256()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            if file.parent.name != "parity" and not (package == "evaluation" and file.name in SHOWS):
                digest.update(f"{file.relative_to(root)}:".encode() + file.read_bytes())
    return digest.hexdigest()
