"""Records a dataset of episodes: which maps, which splits, in which order, in how many processes.

Training maps interleave, so that a training run that starts while the recording goes on sees all of them. Every
twelfth seed of a map is held out (split `E`); the maps of split `U` are recorded for evaluation only.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from teleworld.training.recording.engine import DoomEngine, engine_version, wad_path
from teleworld.training.recording.episode import record_episode
from teleworld.training.recording.manifest import (
    CAPTION_EVERY,
    MANIFEST,
    EpisodeArrays,
    Manifest,
    arrays_digest,
    file_digest,
    mean_speed,
    write_episode,
)
from teleworld.training.recording.wad import read_map
from teleworld.world.errors import InvalidInput, PreconditionFailed

TRAINING_MAPS = ("MAP01", "MAP02", "MAP03", "E1M2")
UNSEEN_MAPS = ("MAP04", "MAP05", "MAP06", "MAP07", "MAP08", "MAP09", "MAP10")
HELD_OUT_EVERY = 12
EPISODE_FRAMES = 350
LONG_FRAMES = 1050
LONG_SEED_BASE = 100_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One episode to record."""

    map: str
    seed: int
    split: str
    frames: int

    def folder(self, root: Path) -> Path:
        """Where the episode goes."""
        return root / self.split / f"{self.map}_{self.seed}"


def plan(maps: Sequence[str], episodes_per_map: int, seed: int, frames: int = EPISODE_FRAMES) -> list[Job]:
    """Training and held-out episodes of the maps, interleaved. Every twelfth is held out as split `E`.

    Raises:
        InvalidInput: a map belongs to the unseen maps, which no training may touch.
    """
    forbidden = set(maps) & set(UNSEEN_MAPS)
    if forbidden:
        raise InvalidInput("maps", f"{sorted(forbidden)} are kept for evaluation")
    return [
        Job(name, seed + i, "E" if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train", frames)
        for i in range(episodes_per_map)
        for name in maps
    ]


def plan_unseen(episodes_per_map: int, seed: int, frames: int = EPISODE_FRAMES) -> list[Job]:
    """Split `U`: episodes of maps that are never trained on."""
    return [Job(name, seed + i, "U", frames) for i in range(episodes_per_map) for name in UNSEEN_MAPS]


def plan_long(maps: Sequence[str], walks_per_map: int, seed: int, frames: int = LONG_FRAMES) -> list[Job]:
    """Split `L`: minute-long walks that come back over their own path."""
    return [Job(name, LONG_SEED_BASE + seed + i, "L", frames) for i in range(walks_per_map) for name in maps]


def plan_dataset(
    maps: Sequence[str] = TRAINING_MAPS,
    episodes_per_map: int = 36,
    unseen_per_map: int = 3,
    walks_per_map: int = 5,
    seed: int = 0,
) -> list[Job]:
    """All splits in one list. Evaluation splits come in the middle, so that early checkpoints can be measured.

    Raises:
        InvalidInput: `maps` names a map that is kept for evaluation.
    """
    jobs = plan(maps, episodes_per_map, seed)
    half = len(jobs) // 2
    return jobs[:half] + plan_unseen(unseen_per_map, seed) + plan_long(maps, walks_per_map, seed) + jobs[half:]


def record(root: Path, jobs: Iterable[Job], processes: int = 1) -> int:
    """Records the episodes that are not there yet.

    Args:
        root: folder of the dataset; each episode goes to `<root>/<split>/<map>_<seed>`.
        jobs: what to record, in this order.
        processes: how many engines work side by side.

    Returns:
        The number of frames recorded by this call. An episode for which no attempt succeeds is logged and skipped.
    """
    missing = [(root, job) for job in jobs if not (job.folder(root) / MANIFEST).is_file()]
    if processes <= 1:
        return sum(map(_record_one, missing))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        return sum(pool.imap_unordered(_record_one, missing))


def record_arrays(job: Job) -> EpisodeArrays:
    """Records one episode into memory."""
    geometry = read_map(wad_path(job.map), job.map)
    with DoomEngine(job.map) as engine:
        return record_episode(engine, geometry, job.map, job.seed, job.frames, returns=job.split == "L")


def _record_one(task: tuple[Path, Job]) -> int:
    root, job = task
    try:
        arrays = record_arrays(job)
    except PreconditionFailed as error:
        log.warning("skipped: %s", error)
        return 0
    manifest = Manifest(
        map=job.map,
        seed=job.seed,
        split=job.split,
        frames=len(arrays.keys),
        engine=engine_version(),
        wad_sha256=file_digest(wad_path(job.map)),
        sha256=arrays_digest(arrays),
        mean_speed=round(mean_speed(arrays), 4),
        frames_per_caption=CAPTION_EVERY,
        captions=arrays.captions,
    )
    write_episode(job.folder(root), arrays, manifest)
    log.info("recorded %s %s seed %d: %d frames", job.split, job.map, job.seed, manifest.frames)
    return manifest.frames
