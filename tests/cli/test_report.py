"""The report: every figure from arrivals that the test lays out by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from teleworld.cli.player import Player
from teleworld.cli.report import Leg, Subject, make_report, percentile, summary, write_report
from teleworld.world.camera import CameraPath, pose

SUBJECT = Subject("worlds/1", "nano", 7, "t_b", 17.5, 320, 192)
REQUIRED = {
    "frames", "width", "height", "fps_target", "fps_achieved", "stalls", "stall_ms_total", "chunk_gap_ms",
    "key_to_frame_ms", "stage_ms", "first_frame_ms", "world", "seed", "model", "chunks",
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A chunk that nobody generated."""

    index: int
    segment: int = 0
    frames: int = 4
    video: bytes = b""
    control_sequence: int = 0
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def path(self) -> CameraPath:
        poses = np.stack([pose(0, 0, self.index + frame / 4, 0) for frame in range(self.frames)])
        return CameraPath(poses, np.ones((self.frames, 4)))

    @property
    def latent_sha256(self) -> str:
        return f"{self.index:064x}"


def leg(*arrivals: tuple[float, Piece], started: float = 0.0) -> Leg:
    return Leg(started, list(arrivals))


def test_rates_and_gaps_come_from_the_times_of_arrival():
    scheduled = leg((0.5, Piece(0, frames=1)), (1.0, Piece(1)), (2.0, Piece(2)), (2.5, Piece(3)))
    report = make_report(SUBJECT, scheduled)
    assert report.keys() >= REQUIRED
    assert report["frames"] == 13
    assert report["first_frame_ms"] == 500
    assert report["fps_achieved"] == pytest.approx(12 / 2)
    assert report["chunk_gap_ms"] == {"p50": 500, "p95": 1000, "max": 1000}
    assert report["key_to_frame_ms"] is None
    assert report["fps_playback"] is None
    assert (report["stalls"], report["stall_ms_total"]) == (0, 0)


def test_a_key_is_seen_in_the_first_chunk_that_reflects_it_or_a_newer_one():
    live = leg((10.0, Piece(4)), (11.0, Piece(5, control_sequence=3)), (12.0, Piece(6, control_sequence=3)))
    live.sent = {2: 10.5, 3: 10.8, 4: 11.5}
    report = make_report(SUBJECT, leg((0.5, Piece(0, frames=1))), live)
    assert report["key_to_frame_ms"] == {"p50": 200, "p95": 500}
    assert [chunk["index"] for chunk in report["chunks"]] == [0, 4, 5, 6]


def test_stalls_are_those_of_the_players():
    live = leg((10.0, Piece(4)))
    live.player = Player(9.0, lambda index: None)
    live.player.stalls, live.player.stalled_ms = 2, 130.0
    report = make_report(SUBJECT, leg((0.5, Piece(0, frames=1))), live)
    assert (report["stalls"], report["stall_ms_total"], report["fps_playback"]) == (2, 130, 9)


def test_a_segments_stage_counts_once_and_a_decoders_for_each_chunk():
    pieces = [
        Piece(1, 0, stage_ms={"plan": 50.0, "decode": 10.0}),
        Piece(2, 0, stage_ms={"plan": 50.0, "populate": 7.0, "decode": 20.0}),
        Piece(3, 1, stage_ms={"plan": 90.0, "decode": 30.0}),
    ]
    report = make_report(SUBJECT, leg(*((float(piece.index), piece) for piece in pieces)))
    assert report["stage_ms"]["plan"] == {"p50": 50, "p95": 90}
    assert report["stage_ms"]["populate"] == {"p50": 7, "p95": 7}
    assert report["stage_ms"]["decode"] == {"p50": 20, "p95": 30}
    assert report["stage_ms"]["reconstruct"] == {"p50": None, "p95": None}
    assert "bridge" not in report["stage_ms"]


def test_percentiles_are_observed_values():
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.95) == 4.0
    assert percentile([1.0], 0.5) == 1.0
    assert percentile([], 0.5) is None


def test_the_file_is_json_and_a_chunk_tells_where_its_last_frame_looked_from(tmp_path: Path):
    report = make_report(SUBJECT, leg((0.5, Piece(0, frames=1)), (1.0, Piece(1, control_sequence=5))))
    write_report(report, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read == report
    assert read["chunks"][1] == {
        "index": 1,
        "segment": 0,
        "camera_pose": pose(0, 0, 1.75, 0).tolist(),
        "control_seq": 5,
        "latent_sha256": f"{1:064x}",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_table_names_only_what_was_measured():
    rows = dict(summary(make_report(SUBJECT, leg((0.5, Piece(0, frames=1)), (1.0, Piece(1, stage_ms={"plan": 5.0}))))))
    assert rows["plan"] == "5.0 ms (p50), 5.0 (p95)"
    assert "populate" not in rows
    assert "playback" not in rows
    assert rows["frames a second"] == "- made, 17.5 native"
