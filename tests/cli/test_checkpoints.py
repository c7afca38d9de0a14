"""`teleworld checkpoint` and `teleworld plan`, as they are typed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from teleworld.cli.located import settle_model
from teleworld.cli.main import main
from teleworld.cli.plan import parse_size
from teleworld.models.dit import DiT
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import NANO
from tests.wan_model import DIT, write_wan_model


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    path = tmp_path / "self_forcing.pt"
    torch.save({"generator_ema": {f"model.{name}": tensor for name, tensor in DiT(DIT).state_dict().items()}}, path)
    return path


def test_a_file_is_inspected_converted_and_inspected_again(pickled: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["checkpoint", "inspect", str(pickled)]) == 0
    before = capsys.readouterr().out
    assert "convert it before it can be served" in before and "Wan-like transformer" in before
    assert main(["checkpoint", "convert", str(pickled), "--dtype", "bfloat16"]) == 0
    capsys.readouterr()
    assert main(["checkpoint", "inspect", str(pickled.with_suffix(".safetensors"))]) == 0
    after = capsys.readouterr().out
    assert "BF16 x 69" in after and "wan_dit" in after and "dit of a model folder" in after
    assert main(["checkpoint", "convert", str(pickled)]) == 2, "nothing is overwritten"
    assert "exists already" in capsys.readouterr().err


def test_a_shipped_checkpoint_says_what_it_is(capsys: pytest.CaptureFixture[str]):
    shipped = Path(__file__).resolve().parents[2] / "checkpoints" / "nano" / "dit.safetensors"
    assert main(["checkpoint", "inspect", str(shipped)]) == 0
    assert "guided_residual" in capsys.readouterr().out


def test_an_unknown_file_is_called_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"layers.0.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    assert main(["checkpoint", "inspect", str(tmp_path / "other.pt")]) == 0
    assert "no architecture here" in capsys.readouterr().out
    assert main(["checkpoint", "inspect", str(tmp_path / "missing.safetensors")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_negative_prompt_is_embedded_ahead_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_wan_model(
        tmp_path / "ahead",
        sampling={"guidance_scale": 5.0, "negative_prompt": "red door", "method": "unipc", "steps": 3},
    )
    assert main(["checkpoint", "prompt", str(folder)]) == 0
    assert "3 tokens" in capsys.readouterr().out and (folder / "negative_prompt.safetensors").is_file()


def test_a_plan_says_whether_it_fits(capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "--model", "18b", "--gpus", "4", "--gpu-memory", "80GiB", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plan["fits"] and [service["service"] for service in plan["services"]] == [
        "planner",
        "populator",
        "reconstructor",
        "decoder",
    ]
    assert plan["services"][1]["parameters"] == pytest.approx(18e9, rel=0.03)
    assert main(["plan", "--model", "1.3b", "--gpus", "1", "--gpu-memory", "8GiB", "--latents", "6"]) == 2
    captured = capsys.readouterr()
    assert "lacks" in captured.out and "1.3b does not fit on 1 GPUs of 8GiB" in captured.err


@pytest.mark.parametrize(
    ("text", "size"), [("80GiB", 80 * 2**30), ("80 GB", 80 * 10**9), ("24.5gib", int(24.5 * 2**30)), ("512MiB", 2**29)]
)
def test_sizes_are_read(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "80", "GiB", "-1GiB", "80 bananas"])
def test_other_words_are_no_sizes(text: str):
    with pytest.raises(InvalidInput, match="gpu-memory"):
        parse_size(text)


def test_a_model_may_be_a_folder(tmp_path: Path):
    folder = write_wan_model(tmp_path / "located-wan")
    options = argparse.Namespace(model=str(folder), checkpoint=None)
    spec = settle_model(options)
    assert (spec.name, spec.fps, options.model, options.checkpoint) == ("located-wan", 16.0, "located-wan", tmp_path)
    assert settle_model(argparse.Namespace(model="located-wan", checkpoint=tmp_path)) == spec
    assert settle_model(argparse.Namespace(model="nano", checkpoint=None)) is NANO
    for model, checkpoint, problem in (
        (str(folder), tmp_path, "leaves nothing for --checkpoint"),
        (f"{folder}-not", None, "is not a folder"),
        ("no-such-model", None, "unknown model"),
    ):
        with pytest.raises(InvalidInput, match=problem):
            settle_model(argparse.Namespace(model=model, checkpoint=checkpoint))
