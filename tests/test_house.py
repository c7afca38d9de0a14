"""The rules of the house, as far as a tool can tell: style, layers, and what the wheel holds."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_linter_has_nothing_to_say():
    run(BIN / "ruff", "check", "--no-cache", ".")


def test_each_layer_imports_only_what_lies_below_it():
    run(BIN / "lint-imports", "--no-cache")


def test_no_file_is_too_long_to_be_one_subject():
    sources = [path for folder in ("teleworld", "services") for path in (ROOT / folder).rglob("*.py")]
    lengths = {path.relative_to(ROOT): path.read_text().count("\n") for path in sources if "_proto" not in path.parts}
    assert {path: lines for path, lines in lengths.items() if lines > 350} == {}


def test_every_requirement_is_pinned():
    """`make setup` may install nothing that the constraints do not fix."""
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = [entry.split("[")[0].split(">")[0].split("=")[0] for entry in extras["dev"] + extras["serve"]]
    assert [name for name in names if name != "teleworld" and name.lower() not in pinned] == []


def test_the_wheel_holds_the_library_alone(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "teleworld", "services", "tests"):
        (source / name).symlink_to(ROOT / name)
    build = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"teleworld"}
    assert "teleworld/py.typed" in names
    for part in (
        "_proto/gateway/v1/stream_pb2.pyi",
        "cli/page/files/page.js",
        "scheduling/cost_tables/nano-192x320.yaml",
    ):
        assert f"teleworld/{part}" in names
