"""The command line's manners: one line for an error, an exit code that means something, faults named before work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from teleworld.cli.generate import parse_live, script_to_controls
from teleworld.cli.main import exit_code, main
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import (
    CheckpointError,
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PreconditionFailed,
    TeleWorldError,
    Unavailable,
)
from teleworld.world.spec import NANO


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("keys", "wrong"), 2),
        (CheckpointError("dit", "missing"), 2),
        (NotFound("worlds/1"), 2),
        (Conflict("taken"), 2),
        (PreconditionFailed("too old"), 2),
        (Unavailable("away"), 3),
        (Overloaded("busy"), 3),
        (DeadlineExceeded("late"), 3),
        (Internal("defect"), 1),
    ],
)
def test_exit_codes(error: TeleWorldError, code: int):
    assert exit_code(error) == code


def generate(picture: Path, folder: Path, *more: str) -> list[str]:
    return ["generate", "--image", str(picture), "--out", str(folder / "walk.mp4"), *more]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--keys", "W*2s Q*1s"], "keys: position 6: unknown key 'Q'"),
        (["--keys", "W*2s", "--live-keys", "W*2"], "live-keys: position 1: expected"),
        (["--keys", "W*2s", "--seconds", "-1"], "seconds: must be"),
        (["--keys", "W*2s", "--model", "giant"], "model: unknown model 'giant'"),
        (["--keys", "W*2s", "--seed", "-5"], "seed: must be"),
        (["--keys", "W*2s", "--report", "/nowhere/at/all.json"], "report: /nowhere/at is not a folder"),
        (["--keys", "W*2s", "--in-process", "--live-keys", "W*1s"], "in-process: live keys"),
        (["--keys", "W*2s", "--chain", "t_x"], "--chain"),
        ([], "--keys"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_starts(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
):
    try:
        code = main(generate(picture, tmp_path, *more))
    except SystemExit as leaving:  # argparse ends the process itself
        code = leaving.code
    output = capsys.readouterr()
    assert code == 2
    assert said in output.err
    assert output.err.count("\n") == 1
    assert "Traceback" not in output.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_picture_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(generate(tmp_path / "none.png", tmp_path, "--keys", "W*1s")) == 2
    assert "image:" in capsys.readouterr().err


def test_a_file_that_is_no_picture_leaves_no_video(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "text.png").write_text("not a picture")
    folder = tmp_path / "out"
    folder.mkdir()
    options = ["--keys", "W*1s", "--in-process", "--checkpoint", str(checkpoint)]
    assert main(generate(tmp_path / "text.png", folder, *options)) == 2
    assert "image: must be a PNG or JPEG picture" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_models_lists_networks_with_their_size_and_digest(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["models", "--checkpoint", str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    for word in ("nano", "dit", "vae", "geometry", "super_resolution", "wan 14B", "17.5"):
        assert word in shown


def test_recording_refuses_maps_that_are_kept_for_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["record", "--out", str(tmp_path / "data"), "--maps", "MAP05"]) == 2
    assert "maps: ['MAP05'] are kept for evaluation" in capsys.readouterr().err


def test_training_without_recordings_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folders = ["--data", str(tmp_path / "data"), "--runs", str(tmp_path), "--export", str(tmp_path)]
    assert main(["train", "vae", *folders]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_the_first_key_is_that_of_chunk_1():
    controls, chunks = script_to_controls("W*2s RIGHT*2s", NANO)
    frames = round(4 * NANO.fps)
    assert chunks == 1 + -(-frames // 4)
    assert controls == (Control(1, Keys.W, 1), Control(2, Keys.RIGHT, 10))


def test_seconds_cut_a_walk_or_let_it_drift_on():
    short, few = script_to_controls("W*2s RIGHT*2s", NANO, seconds=1)
    assert short == (Control(1, Keys.W, 1),)
    assert few == 6
    long, many = script_to_controls("W*2s", NANO, seconds=4)
    assert long[-1].keys is Keys.NONE
    assert many == 1 + -(-round(4 * NANO.fps) // 4)


def test_no_live_keys_are_no_holds():
    assert parse_live(None) == ()
