"""The recorder against the real engine: episodes repeat bit by bit, and their geometry explains their pictures."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from teleworld.training.dataset import load_split
from teleworld.training.recording import depth as tracing
from teleworld.training.recording.engine import DoomEngine, RawFrame, wad_path
from teleworld.training.recording.episode import draw_place, resolve
from teleworld.training.recording.manifest import arrays_digest
from teleworld.training.recording.record import Job, plan, plan_dataset, plan_long, plan_unseen, record, record_arrays
from teleworld.training.recording.wad import MapGeometry, read_map
from teleworld.training.recording.walker import PITCH_LIMIT, Returner, Sight, Wanderer
from teleworld.world.controls import Keys
from teleworld.world.errors import InvalidInput
from tests.training.warp_check import warp_psnr


@pytest.fixture(scope="module")
def episode_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recorded")
    assert record(root, [Job("MAP01", 1, "train", 60)]) == 60
    return root


def room(sky: bool) -> MapGeometry:
    """A square room of 256 units, 128 high, and beyond its eastern side an alcove with a step of 32 and a low roof."""
    corners = [(0, 0, 0, 256), (0, 256, 256, 256), (256, 256, 256, 0), (256, 0, 0, 0)]
    alcove = [(256, 256, 384, 256), (384, 256, 384, 0), (384, 0, 256, 0)]
    return MapGeometry(
        segments=np.array(corners + alcove, np.float64),
        front=np.array([0, 0, 0, 0, 1, 1, 1], np.int32),
        back=np.array([-1, -1, 1, -1, -1, -1, -1], np.int32),
        blocking=np.zeros(7, bool),
        wall_textures=(("-", "STONE", "-"),) * 7,
        sector_floor=np.array([0.0, 32.0]),
        sector_ceiling=np.array([128.0, 96.0]),
        sector_sky=np.array([sky, False]),
        floor_textures=("FLAT1", "FLAT1"),
        things=np.array([[128.0, 128.0]]),
    )


@pytest.mark.parametrize("sky", [False, True])
def test_trace_of_a_room_has_exact_depths(sky: bool) -> None:
    place = room(sky)
    eye = np.array([128.0, 128.0, 41.0, 0.0])
    depth, line_of, sector_of, _, counts = tracing.trace(
        place.segments, place.front, place.back, place.sector_floor, place.sector_ceiling, place.sector_sky, eye, 48.0
    )
    assert counts[80] == 2
    middle = depth[:, 80]
    floor_rows = np.arange(72, 96)
    np.testing.assert_allclose(middle[floor_rows[2:]], 80 * 41 / (floor_rows[2:] + 0.5 - 48), rtol=1e-5)
    assert middle[70] == pytest.approx(128) and line_of[70, 80] == 2 and sector_of[70, 80] == 1
    assert middle[47] == pytest.approx(256) and line_of[47, 80] == 5
    assert middle[8] == pytest.approx(128) and line_of[8, 80] == 2, "the wall above the alcove's opening"
    np.testing.assert_allclose(depth[0, 70:90], 128.0, rtol=1e-5)
    tilted = tracing.trace(
        place.segments, place.front, place.back, place.sector_floor, place.sector_ceiling, place.sector_sky, eye, 80.0
    )[0]
    if sky:
        assert (tilted[:10, 80] == 0).all()
    else:
        np.testing.assert_allclose(tilted[:10, 80], 80 * 87 / (80 - np.arange(10) - 0.5), rtol=1e-5)


def test_sector_and_clearance_of_a_place() -> None:
    place = room(sky=False)
    assert [place.sector_at(100, 100), place.sector_at(300, 100), place.sector_at(500, 100)] == [0, 1, -1]
    assert place.clearance(100, 30) == pytest.approx(30)
    assert place.clearance(250, 128) == pytest.approx(6), "a step of 32 stops the player"


def test_fuse_prefers_the_trace_and_snaps_what_the_buffer_denies() -> None:
    traced = np.full((96, 160), 300, np.float32)
    line_of = np.zeros((96, 160), np.int32)
    line_of[:10], traced[:10] = tracing.NO_SURFACE, 0
    sprites = np.zeros((96, 160), np.float32)
    sprites[50, 50] = 77
    buffer = np.full((192, 320), 302, np.float32)
    buffer[80:100, 100:120] = 203
    hits = np.zeros((160, tracing.MAX_HITS), np.float32)
    hits[:, :2] = 200, 300
    depth, source = tracing.fuse(traced, line_of, buffer, sprites, hits, np.full(160, 2, np.int32))
    assert (depth[:10] == 0).all() and depth[30, 30] == 300
    assert depth[50, 50] == 77 and source[50, 50] == 2
    assert (depth[40:50, 50:60].ravel()[:5] == 200).all(), "a fence in front, snapped to its line"


def test_a_sprite_needs_half_a_pixel_but_its_motion_needs_only_a_touch() -> None:
    labels = np.zeros((192, 320), np.uint8)
    labels[20:22, 40] = 5
    labels[30, 60] = 5
    labels[40:42, 80:82] = 7
    depth, dynamic = tracing.layer_sprites(labels, np.array([5, 7]), np.array([100.0, 50.0]), np.array([True, False]))
    assert depth[10, 20] == 100 and depth[15, 30] == 0 and depth[20, 40] == 50 and np.count_nonzero(depth) == 2
    assert dynamic[10, 20] and dynamic[15, 30] and dynamic.sum() == 2


def test_trace_agrees_with_the_engines_own_depth() -> None:
    geometry = read_map(wad_path("MAP01"), "MAP01")
    rng = np.random.default_rng(0)
    with DoomEngine("MAP01") as engine:
        engine.restart(1, draw_place(geometry, rng), 0.0, peaceful=True)
        raw: RawFrame = engine.frame()
    scene = resolve(raw, geometry, None)
    coarse = tracing.buffer_to_units(raw.depth_buffer).reshape(96, 2, 160, 2).mean(axis=(1, 3)) / 32
    known = (scene.depth > 0.5) & (scene.depth < 50) & (scene.line_of != tracing.NO_SURFACE)
    assert known.mean() > 0.5
    assert np.median(np.abs(scene.depth - coarse)[known]) < 0.15


def test_an_episode_is_a_function_of_map_and_seed(episode_root: Path) -> None:
    again = record_arrays(Job("MAP01", 1, "train", 60))
    assert load_split(episode_root, "train")[0].manifest.sha256 == arrays_digest(again)


def test_warping_with_pose_and_depth_explains_the_next_frames(episode_root: Path) -> None:
    episode = load_split(episode_root, "train")[0]
    scores = []
    for start in range(0, 50, 5):
        pair = np.array([start, start + 10]) if start + 10 < 60 else np.array([start, 59])
        cameras = episode.cameras[pair]
        scores.append(
            warp_psnr(
                episode.rgb[pair],
                episode.depth(pair),
                episode.dynamic(pair),
                cameras.camera_to_world,
                cameras.intrinsics,
            )
        )
    warped, still, share = np.nanmedian(np.array(scores), axis=0)
    assert share > 0.3 and warped > 24 and warped > still + 5


def test_low_resolution_is_the_average_and_keys_are_known(episode_root: Path) -> None:
    episode = load_split(episode_root, "train")[0]
    average = episode.rgb_high[7].reshape(96, 2, 160, 2, 3).mean(axis=(1, 3))
    assert np.abs(average - episode.rgb[7]).max() <= 0.5
    assert episode.keys[0] == Keys.NONE and len(set(episode.keys.tolist())) > 1
    episode.cameras.check("cameras", frames=60)
    assert episode.caption(0).startswith("A ") and episode.caption(0).endswith(".")


def test_recording_again_keeps_what_is_there(episode_root: Path) -> None:
    assert record(episode_root, [Job("MAP01", 1, "train", 60)]) == 0


def test_plans_hold_out_episodes_and_refuse_unseen_maps() -> None:
    jobs = plan(["MAP01", "MAP02"], 12, seed=0)
    assert [job.map for job in jobs[:4]] == ["MAP01", "MAP02", "MAP01", "MAP02"]
    assert [(job.map, job.seed) for job in jobs if job.split == "E"] == [("MAP01", 11), ("MAP02", 11)]
    with pytest.raises(InvalidInput):
        plan(["MAP05"], 1, seed=0)
    assert {job.split for job in plan_unseen(1, 0)} == {"U"}
    everything = plan_dataset(episodes_per_map=12)
    assert {job.split for job in everything} == {"train", "E", "U", "L"} and len(set(everything)) == len(everything)
    assert not {(job.map, job.seed) for job in plan_long(["MAP01"], 2, 0)} & {(job.map, job.seed) for job in jobs}


def test_wanderer_turns_away_from_a_wall_it_cannot_pass() -> None:
    walker = Wanderer(np.random.default_rng(3), spin=False)
    turned = 0.0
    for _ in range(120):
        step = walker.step(Sight((0.0, 0.0), 0.0, 0.0, (3.0, 0.5, 1.0)))
        turned += step.turn
        assert abs(step.turn) <= np.radians(4.0) + 1e-9 and bool(step.turn) == bool(
            step.keys & (Keys.LEFT | Keys.RIGHT)
        )
    assert turned < -1.0, "to the left, which is open"


def test_tilt_stops_at_the_limit() -> None:
    walker = Wanderer(np.random.default_rng(0), spin=False)
    pitch, highest = 0.0, 0.0
    for frame in range(3000):
        pitch += walker.step(Sight((0.2 * frame, 0.0), 0.0, pitch, (9.0, 9.0, 9.0))).tilt
        highest = max(highest, abs(pitch))
    assert np.radians(8) < highest <= PITCH_LIMIT + 1e-9


def test_returner_comes_back_to_where_it_started() -> None:
    walker = Returner(np.random.default_rng(5), out_frames=300)
    x = z = yaw = pitch = 0.0
    path = []
    for _ in range(1100):
        step = walker.step(Sight((x, z), yaw, pitch, (9.0, 9.0, 9.0)))
        yaw, pitch = yaw + step.turn, pitch + step.tilt
        x += step.forward * np.sin(yaw) + step.right * np.cos(yaw)
        z += step.forward * np.cos(yaw) - step.right * np.sin(yaw)
        path.append((x, z))
    way = np.hypot(*np.array(path).T)
    assert way[:300].max() > 3 and way[350:].min() < 1.0


@pytest.mark.parametrize(
    ("content", "field"),
    [(b"nonsense", "path"), (b"PWAD" + struct.pack("<ii", 0, 12), "map")],
)
def test_a_wrong_wad_is_refused(tmp_path: Path, content: bytes, field: str) -> None:
    path = tmp_path / "wrong.wad"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        read_map(path, "MAP01")
    assert caught.value.field == field
