"""What a walk was like, in figures: `report.json`, and a short table of it.

Figures are taken where a player stands: a chunk counts when its bytes have arrived here. Times are milliseconds.
Percentiles are of the observed values themselves (nearest rank), never interpolated.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from teleworld.cli.player import Player, sustained_fps
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput

CHUNK_STAGES = ("decode", "super_resolution", "encode")
SEGMENT_STAGES = ("plan", "populate", "render_guidance", "reconstruct")
OTHER_STAGES = ("encode_picture", "encode_guidance", "bridge")
# In place of decode and super_resolution where a Triton server does both.
REMOTE_STAGES = ("triton",)


class Shot(Protocol):
    """What a chunk says of itself, from the mesh or from the in-process engine alike."""

    @property
    def index(self) -> int: ...
    @property
    def segment(self) -> int: ...
    @property
    def frames(self) -> int: ...
    @property
    def video(self) -> bytes: ...
    @property
    def path(self) -> CameraPath: ...
    @property
    def control_sequence(self) -> int: ...
    @property
    def latent_sha256(self) -> str: ...
    @property
    def stage_ms(self) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Subject:
    """The world that was walked through. fps: native. width, height: of the video in pixels."""

    world: str
    model: str
    seed: int
    chain: str
    fps: float
    width: int
    height: int


@dataclass
class Leg:
    """One stretch of a walk: scheduled keys, or live ones. Times are in seconds of one clock.

    arrivals: when each chunk was here. sent: when each live control was sent, by its sequence number. player: if paced.
    """

    started: float
    arrivals: list[tuple[float, Shot]] = field(default_factory=list)
    sent: dict[int, float] = field(default_factory=dict)
    player: Player | None = None

    def gaps_ms(self) -> list[float]:
        """Times between one chunk and the next."""
        times = [at for at, _ in self.arrivals]
        return [(after - before) * 1000 for before, after in itertools.pairwise(times)]

    def fps(self) -> float | None:
        """Frames a second from the first chunk to the last."""
        return sustained_fps([(at, shot.frames) for at, shot in self.arrivals])

    def sustained_fps(self) -> float | None:
        """The same over the later half, when caches are warm."""
        return sustained_fps([(at, shot.frames) for at, shot in self.arrivals[len(self.arrivals) // 2 :]])

    def key_to_frame_ms(self) -> list[float]:
        """From each live control to the first chunk that reflects it; controls that none reflected are left out."""
        times = []
        for sequence, sent in self.sent.items():
            arrived = next((at for at, shot in self.arrivals if shot.control_sequence >= sequence), None)
            if arrived is not None:
                times.append((arrived - sent) * 1000)
        return times


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def make_report(subject: Subject, scheduled: Leg, live: Leg | None = None) -> dict[str, Any]:
    """The content of `report.json`.

    fps_achieved, chunk_gap_ms and first_frame_ms are of the scheduled leg; key_to_frame_ms is of the live one, null
    without it. fps_playback is the rate that the last player came to, null when nothing was paced.
    """
    legs = [scheduled] + ([live] if live else [])
    shots = [shot for leg in legs for _, shot in leg.arrivals]
    players = [leg.player for leg in legs if leg.player is not None]
    gaps = scheduled.gaps_ms()
    keys = live.key_to_frame_ms() if live else []
    first = (scheduled.arrivals[0][0] - scheduled.started) * 1000 if scheduled.arrivals else None
    return {
        "world": subject.world,
        "model": subject.model,
        "seed": subject.seed,
        "chain": subject.chain,
        "frames": sum(shot.frames for shot in shots),
        "width": subject.width,
        "height": subject.height,
        "fps_target": subject.fps,
        "fps_achieved": _rounded(scheduled.fps()),
        "fps_playback": _rounded(players[-1].fps) if players else None,
        "stalls": sum(player.stalls for player in players),
        "stall_ms_total": _rounded(sum(player.stalled_ms for player in players)),
        "first_frame_ms": _rounded(first),
        "chunk_gap_ms": _spread(gaps) | {"max": _rounded(max(gaps, default=None))},
        "key_to_frame_ms": _spread(keys) if keys else None,
        "stage_ms": _stages(shots),
        "chunks": [_chunk(shot) for shot in shots],
    }


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write it as JSON, a line a field and a line a chunk; whole or not at all."""
    chunks = ",\n  ".join(json.dumps(chunk) for chunk in report["chunks"])
    fields = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in report.items() if name != "chunks"]
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("{\n" + ",\n".join([*fields, f' "chunks": [\n  {chunks}\n ]']) + "\n}\n")
    os.replace(temporary, path)


def summary(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rows of a short table: what, and how much."""
    gap, keys = report["chunk_gap_ms"], report["key_to_frame_ms"]
    rows = [
        ("picture", f"{report['width']} x {report['height']}, {report['frames']} frames"),
        ("frames a second", f"{_shown(report['fps_achieved'])} made, {report['fps_target']:g} native"),
        ("first frame", f"{_shown(report['first_frame_ms'])} ms"),
        ("between chunks", f"{_shown(gap['p50'])} ms (p50), {_shown(gap['p95'])} (p95), {_shown(gap['max'])} (max)"),
    ]
    if report["fps_playback"] is not None:
        stalls = f"{report['stalls']} stalls, {_shown(report['stall_ms_total'])} ms"
        rows.append(("playback", f"{_shown(report['fps_playback'])} frames a second, {stalls}"))
    if keys is not None:
        rows.append(("key to frame", f"{_shown(keys['p50'])} ms (p50), {_shown(keys['p95'])} (p95)"))
    for stage, spread in report["stage_ms"].items():
        if spread["p50"] is not None:
            rows.append((stage.replace("_", " "), f"{_shown(spread['p50'])} ms (p50), {_shown(spread['p95'])} (p95)"))
    return rows


def _stages(shots: Sequence[Shot]) -> dict[str, dict[str, float | None]]:
    """Milliseconds of each stage: a decoder's of each chunk, all others' of each segment.

    A segment's chunks tell what it took until then, so the largest figure is the segment's.
    """
    result = {}
    for stage in (*SEGMENT_STAGES, *CHUNK_STAGES, *OTHER_STAGES, *REMOTE_STAGES):
        told = [(shot.segment, shot.stage_ms[stage]) for shot in shots if stage in shot.stage_ms]
        if stage in CHUNK_STAGES + REMOTE_STAGES:
            values = [milliseconds for _, milliseconds in told]
        else:
            segments: dict[int, float] = {}
            for segment, milliseconds in told:
                segments[segment] = max(milliseconds, segments.get(segment, 0.0))
            values = list(segments.values())
        if values or stage not in OTHER_STAGES + REMOTE_STAGES:
            result[stage] = _spread(values)
    return result


def _chunk(shot: Shot) -> dict[str, Any]:
    return {
        "index": shot.index,
        "segment": shot.segment,
        # camera_to_world of the last frame, rows of a 4x4 matrix, metres, OpenCV axes
        "camera_pose": shot.path.camera_to_world[-1].tolist(),
        "control_seq": shot.control_sequence,
        "latent_sha256": shot.latent_sha256,
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"p50": _rounded(percentile(values, 0.5)), "p95": _rounded(percentile(values, 0.95))}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def check_target(field: str, path: Path | None) -> None:
    """Raises InvalidInput(`field`) for a file to be written whose folder is not there."""
    if path is not None and not path.parent.is_dir():
        raise InvalidInput(field, f"{path.parent} is not a folder")
