"""The command line's manners: one line for an error, an exit code that means something, faults named before work begins."""

from __future__ import annotations

import argparse
import importlib
import socket
from pathlib import Path

import pytest

from teleworld.cli.generate import parse_live, script_to_controls
from teleworld.cli.main import COMMANDS, exit_code, main
from teleworld.generation.model_folder import ModelFolder
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--image", "none.png"], "image: none.png cannot be read: No such file or directory"),
        (["--image", "{picture}", "--image", "{picture}"], "has the name of"),
        (["--port", "70000"], "port: must lie between 0 and 65535"),
        (["--seed", "-5"], "seed: must be 0 or more"),
        (["--model", "giant"], "model: unknown model 'giant'"),
        (["--populators", "0", "--no-browser"], "populators: at least one is needed"),
    ],
)
def test_play_refuses_bad_input_before_anything_starts(
    picture: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
):
    assert main(["play", *(option.format(picture=picture) for option in options)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


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
    assert ModelFolder(checkpoint / "nano").digest in shown, "what a chart pins"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"teleworld.cli.{command}").add_arguments(parser)
    parsers = [parser]
    while parsers:
        for action in parsers.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            else:
                assert action.help, action.option_strings or action.dest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["dance"], "invalid choice: 'dance'"),
        (["up", "--threads", "0"], "threads: at least one is needed"),
        (["up", "--redis", "http://localhost"], "redis: must be a URL that begins with one of redis, rediss, unix"),
        (["up", "--checkpoint", "/nowhere"], "checkpoint: /nowhere has no folder nano"),
        (["record", "--out", "{folder}", "--processes", "0"], "processes: at least one is needed"),
        (["record", "--out", "{folder}", "--seed", "-1"], "seed: must not be negative"),
        (["train", "vae", "--data", "{folder}", "--minutes", "0"], "minutes: must be more than 0"),
        (["curate", "/nowhere.yaml", "--source", ".", "--out", "{folder}"], "config: /nowhere.yaml cannot be read"),
        (["curate", "{text}", "--source", ".", "--out", "{folder}"], "text.md is not YAML: "),
        (["checkpoint", "inspect", "{text}"], "text.md: expected .safetensors"),
        (["plan", "--gpus", "0"], "gpus: at least one is needed"),
        (["key", "a key", "--tenant", "acme"], "id: must be 1 to 64 characters"),
    ],
)
def test_each_command_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
):
    text = tmp_path / "text.md"
    text.write_text("# A title\n\n- one\n    two: [\n")
    try:
        code = main([word.format(folder=tmp_path / "out", text=text) for word in arguments])
    except SystemExit as leaving:
        code = leaving.code
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["up", "play"])
def test_a_port_in_use_is_named_before_anything_starts(capsys: pytest.CaptureFixture[str], command: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([command, "--port", str(port)]) == 2
    output = capsys.readouterr()
    assert f"port: 127.0.0.1:{port} cannot be listened on: Address already in use; 0 chooses" in output.err
    assert output.out == ""


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
