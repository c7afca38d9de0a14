"""The pipeline on real video files: every stage decides as the picture deserves, writes it down, and never asks twice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from teleworld.cli.main import main
from teleworld.curation.clips import Clip, whole
from teleworld.curation.pipeline import Decision, Pipeline, Verdict, configure, load_config
from teleworld.curation.stages.cameras import Cameras
from teleworld.curation.stages.captions import Captions
from teleworld.curation.stages.masks import MotionMasks, read_masks
from teleworld.curation.stages.motion import CameraMotion, MovingObjects
from teleworld.curation.stages.quality import Quality
from teleworld.curation.stages.shots import Shots
from teleworld.curation.stages.text_overlay import TextOverlay
from teleworld.world.errors import InvalidInput
from tests.memory.room import NANO, path, shoot

FPS = 20.0
SIZE = (320, 192)
LENS = NANO.scaled(2)


def texture(seed: int) -> np.ndarray:
    """A wide random picture with structure at all scales, uint8 [400, 900, 3]."""
    random = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            random.integers(0, 256, (400 // step, 900 // step, 3), np.uint8), (900, 400), interpolation=cv2.INTER_CUBIC
        )
        for step in (4, 12, 40)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


def pan(frames: int, step: float = 3.0, seed: int = 0) -> np.ndarray:
    """A camera that slides over the texture."""
    wide = texture(seed)
    return np.stack([wide[100:292, round(20 + k * step) : round(20 + k * step) + 320] for k in range(frames)])


def write(file: Path, frames: np.ndarray) -> Clip:
    """Write uint8 [F, H, W, 3] as a video, and return all of it as a clip."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (frames.shape[2], frames.shape[1]))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return whole(file)


def block(frames: np.ndarray) -> np.ndarray:
    """The same with a bright block that moves against the camera."""
    frames = frames.copy()
    for number, frame in enumerate(frames):
        left = 250 - 5 * number
        frame[70:130, left : left + 50] = texture(9)[:60, :50] // 2 + 120
    return frames


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A walk through a textured room, ray-cast exactly."""
    poses = [(-0.8 + 0.06 * k, -3.0 + 0.08 * k, 1.2 * k) for k in range(24)]
    frames = np.stack([shot.picture for shot in shoot(path(*poses, lens=LENS), LENS)])
    return write(tmp_path_factory.mktemp("walk") / "walk.mp4", frames)


def test_shots_are_cut_where_the_scene_changes(tmp_path: Path) -> None:
    clip = write(tmp_path / "two.mp4", np.concatenate([pan(50, step=0.5, seed=1), pan(60, step=0.5, seed=2) // 4]))
    shots = Shots(shortest=1.0, longest=2.0).split(clip)
    assert [(shot.start, shot.frames) for shot in shots] == [(0, 40), (50, 40), (90, 20)]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda frames: frames, ""),
        (lambda frames: np.stack([cv2.GaussianBlur(one, (0, 0), 6) for one in frames]), "blurred"),
        (lambda frames: frames // 12, "too dark"),
        (lambda frames: np.repeat(frames[:1], len(frames), axis=0), "frozen"),
        (lambda frames: frames[:, ::4, ::4], "too small"),
    ],
)
def test_quality(tmp_path: Path, spoil, reason: str) -> None:  # type: ignore[no-untyped-def]
    decision = Quality().judge(write(tmp_path / "clip.mp4", spoil(pan(20))), tmp_path)
    assert decision.reason == reason
    assert decision.verdict is (Verdict.REJECT if reason else Verdict.KEEP)


def test_overlaid_text_is_found_and_texture_is_not_text(tmp_path: Path) -> None:
    frames = pan(12)
    assert (
        TextOverlay(samples=2, width=320).judge(write(tmp_path / "plain.mp4", frames), tmp_path).verdict is Verdict.KEEP
    )
    titled = frames.copy()
    for frame in titled:
        cv2.rectangle(frame, (10, 150), (310, 185), (0, 0, 0), -1)
        cv2.putText(frame, "SUBSCRIBE NOW", (20, 178), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2)
    decision = TextOverlay(samples=2, width=320).judge(write(tmp_path / "titled.mp4", titled), tmp_path)
    assert decision.verdict is Verdict.REJECT and "SUBSCRIBE" in decision.reason.upper()


def test_camera_motion_is_measured_in_picture_widths_a_second(tmp_path: Path) -> None:
    moving = CameraMotion().judge(write(tmp_path / "pan.mp4", pan(20, step=2.0)), tmp_path)
    assert moving.verdict is Verdict.KEEP
    assert moving.scores["widths_per_second"] == pytest.approx(2.0 * FPS / 320, rel=0.1)
    still = CameraMotion().judge(write(tmp_path / "still.mp4", pan(20, step=0.0)), tmp_path)
    assert still.reason == "the camera hardly moves"


def test_what_moves_by_itself_is_told_from_the_camera(tmp_path: Path) -> None:
    alone, busy = pan(16, step=2.0), block(pan(16, step=2.0))
    stage = MovingObjects(least=0.01)
    assert stage.judge(write(tmp_path / "alone.mp4", alone), tmp_path).verdict is Verdict.REJECT
    assert stage.judge(write(tmp_path / "busy.mp4", busy), tmp_path).verdict is Verdict.KEEP
    MotionMasks().judge(write(tmp_path / "busy2.mp4", busy), tmp_path)
    masks = read_masks(tmp_path)
    assert masks.shape == (16, 192, 320)
    inside = masks[3, 72:128, 240:280].mean()
    masks[:, 55:145] = False
    assert inside > 0.6 and masks.mean() < 0.02


def test_colmap_finds_the_way_through_the_room(walk: Clip, tmp_path: Path) -> None:
    MotionMasks(residual=0.2).judge(walk, tmp_path)
    decision = Cameras(every=0.1, width=320, focal=(LENS.fx / LENS.width, LENS.fy / LENS.width)).judge(walk, tmp_path)
    assert decision.verdict is Verdict.KEEP and decision.scores["registered"] > 0.8
    with np.load(tmp_path / "cameras.npz") as file:
        poses, frames = file["camera_to_world"], file["frames"]
    relative = np.linalg.inv(poses[0]) @ poses[-1]
    turned = np.degrees(np.arctan2(relative[0, 2], relative[2, 2]))
    assert turned == pytest.approx(1.2 * (frames[-1] - frames[0]), abs=2)
    caption = Captions().judge(walk, tmp_path)
    text = (tmp_path / "caption.txt").read_text()
    assert caption.verdict is Verdict.KEEP and "moves forward and turns right" in text


@dataclass(frozen=True)
class Asked:
    """A stage of somebody's own: keeps every clip, and counts."""

    least: int = 0
    calls = []  # noqa: RUF012 - shared on purpose

    def judge(self, clip: Clip, folder: Path) -> Decision:
        self.calls.append(clip.name)
        return Decision(Verdict.KEEP if clip.frames >= self.least else Verdict.REJECT, {"frames": clip.frames}, "short")


def stages(*entries: dict) -> list:  # type: ignore[type-arg]
    made: list = []  # type: ignore[type-arg]
    for number, entry in enumerate(entries):
        made.append(configure(f"stages[{number}]", entry, made[-1].digest if made else ""))
    return made


def test_decisions_are_logged_kept_and_made_anew_when_settings_change(tmp_path: Path) -> None:
    Asked.calls.clear()
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write(videos / "a.mp4", pan(30))
    write(videos / "b.mp4", pan(10))
    own = {"use": f"{__name__}:Asked", "least": 20}
    kept = Pipeline(stages(own), out).run(videos)
    assert [clip.source.stem for clip in kept] == ["a"] and len(Asked.calls) == 2
    log = (out / "decisions.jsonl").read_text()
    assert len(log.splitlines()) == 2 and '"reason": "short"' in log
    (out / "decisions.jsonl").write_text(log + '{"clip": "torn')  # the process died while it wrote
    assert len(Pipeline(stages(own), out).run(videos)) == 1 and len(Asked.calls) == 2
    assert (out / "decisions.jsonl").read_text() == log
    Pipeline(stages(own | {"least": 5}), out).run(videos)
    assert len(Asked.calls) == 4, "other settings decide anew"


def test_an_expert_decides_and_what_nobody_saw_waits(tmp_path: Path) -> None:
    videos, out, review = tmp_path / "videos", tmp_path / "out", tmp_path / "review.yaml"
    videos.mkdir()
    name = write(videos / "a.mp4", pan(12)).name
    entry = {"use": "review", "file": str(review)}
    assert Pipeline(stages(entry), out).run(videos) == []
    assert json.loads((out / "decisions.jsonl").read_text())["verdict"] == "pending"
    review.write_text(f"{name}: {{verdict: keep, by: ada, note: fine}}\n")
    assert len(Pipeline(stages(entry), out).run(videos)) == 1
    review.write_text(f"{name}: {{verdict: maybe}}\n")
    assert len(Pipeline(stages(entry), out).run(videos)) == 1, "a decision that was made stays"


def test_the_command_reports_and_names_what_it_cannot_read(tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write(videos / "a.mp4", pan(30))
    (videos / "broken.mp4").write_bytes(b"no video at all")
    config = tmp_path / "config.yaml"
    config.write_text("stages:\n  - use: shots\n    shortest: 1\n  - use: quality\n  - use: camera_motion\n")
    assert main(["curate", str(config), "--source", str(videos), "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["kept"] == 1 and report["stages"]["quality"]["keep"] == 1
    assert "broken.mp4" in report["unreadable"][0]
    assert "Curation: 1 clips kept" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("stages: []", "stages"),
        ("stages: [{use: polish}]", r"stages\[0\].use"),
        ("stages: [{use: quality}, {use: quality, blurr: 3}]", r"stages\[1\].blurr"),
        ("stages: [{use: quality, blur: much}]", r"stages\[0\].blur"),
    ],
)
def test_a_bad_configuration_names_stage_and_field(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=field):
        load_config(file)
