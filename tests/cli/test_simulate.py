"""`teleworld simulate` at the prompt: figures, one JSON object, pictures, and faults that name the field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from teleworld.cli.main import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "simulate" / "one_node.yaml"
SPEC = """
name: short
model: emulated-18b
setup: four-h100
seconds: 30
arrivals: {at: [0]}
audience: {video_s: 6, fps: 4, key_every_s: 2}
slo: {first_frame_p95_s: 30}
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.yaml"
    path.write_text(SPEC)
    return path


def test_json_is_the_only_line(short, capsys):
    assert main(["simulate", str(short), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)
    assert figures["frames"] == 25 and figures["complete"] == 1 and figures["broken"] == []
    assert {each["name"] for each in figures["sets"]} == {"planner", "populator", "reconstructor+decoder"}


def test_an_ordering_and_a_seed_in_place_of_the_file_s(short, capsys):
    seen = []
    for more in (["--ordering", "autoregressive"], ["--ordering", "autoregressive", "--seed", "2"], []):
        assert main(["simulate", str(short), "--json", *more]) == 0
        seen.append(json.loads(capsys.readouterr().out))
    assert seen[0]["ordering"] == "autoregressive" and seen[2]["ordering"] == "adaptive"
    assert seen[0]["makespan"] != seen[1]["makespan"]


def test_sizes_are_found_and_told(short, capsys):
    assert main(["simulate", str(short), "--solve"]) == 0
    told = capsys.readouterr().out
    assert "the smallest that do" in told and "1 planner, 1 populator, 1 reconstructor+decoder" in told


def test_pictures_hold_everything(short, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture, page = tmp_path / "run.png", tmp_path / "run.html"
    assert main(["simulate", str(short), "--png", str(picture), "--html", str(page)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "<svg" in text and "world-hour" in text
    assert "src=" not in text and "<script" not in text and "@import" not in text, "needs something from outside"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("model: emulated-18b|model: other", "model: unknown"),
        ("setup: four-h100|setup: nine-h100", "setup: unknown"),
        ("seconds: 30|seconds: -1", "seconds: must be"),
        ("name: short|name: [", "spec: is not YAML"),
    ],
)
def test_a_fault_in_the_file_is_one_line_that_names_the_field(short, capsys, change, complaint):
    short.write_text(SPEC.replace(*change.split("|")))
    assert main(["simulate", str(short)]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1


def test_faults_on_the_command_line(short, tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "none.yaml")]) == 2
    assert "spec:" in capsys.readouterr().err
    assert main(["simulate", str(short), "--png", str(tmp_path / "no" / "a.png")]) == 2
    assert "png:" in capsys.readouterr().err
    assert main(["simulate", str(EXAMPLE), "--seconds", "0"]) == 2
    assert "seconds:" in capsys.readouterr().err


@pytest.mark.parametrize("example", sorted(EXAMPLE.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_run(example, capsys):
    seconds = "2" if example.stem == "fleet" else "20"
    assert main(["simulate", str(example), "--seconds", seconds, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["worlds"] > 0 and figures["frames"] > 0 and figures["refused"] == 0
