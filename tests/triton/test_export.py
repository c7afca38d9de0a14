"""`teleworld triton export`: what it writes, and what it refuses. Whether Triton takes it is tested with the server."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest

from teleworld.cli.main import main
from teleworld.generation.model import Model


def test_the_repository_holds_the_weights_and_pins_them(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "repository"
    assert main(["triton", "export", "--model", str(model.folder.path), "--out", str(out), "--threads", "3"]) == 0
    assert model.digest in capsys.readouterr().out
    for name, network in (("stream_vae", "vae"), ("super_resolution", "super_resolution")):
        copied = out / name / "1" / "nano" / f"{network}.safetensors"
        assert filecmp.cmp(copied, model.file(network), shallow=False)
        config = (out / name / "config.pbtxt").read_text()
        assert 'key: "threads" value: { string_value: "3" }' in config
        assert "sequence_batching" in config
        assert (out / name / "1" / "model.py").exists()
    assert model.digest in (out / "teleworld_decoder" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--threads", "0"], "threads: must be positive"),
        (["--idle-seconds", "-1"], "idle-seconds: must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
):
    command = ["triton", "export", "--model", str(model.folder.path), "--out", str(tmp_path / "new"), *more]
    assert main(command) == 2
    assert said in capsys.readouterr().err


def test_nothing_is_written_over(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "kept").write_text("mine")
    assert main(["triton", "export", "--model", str(model.folder.path), "--out", str(tmp_path)]) == 2
    assert "out: " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
