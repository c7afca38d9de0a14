"""The contracts: lint clean, compatible with the committed baseline, and the generated code is what they say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).parent / "buf"


def buf(*arguments: str, cwd: Path = ROOT) -> str:
    """What buf complains about; empty when it does not."""
    done = subprocess.run([BUF, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def test_lint_is_clean() -> None:
    assert buf("lint") == ""


def test_format_is_clean() -> None:
    assert buf("format", "--diff", "--exit-code") == ""


def test_nothing_breaks_the_baseline() -> None:
    assert buf("breaking", "--against", "protos/baseline.binpb") == ""


def test_a_breaking_change_is_found(tmp_path: Path) -> None:
    for source in [ROOT / "buf.yaml", *(ROOT / "protos").rglob("*.proto")]:
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text().replace("uint64 epoch = 2;", "uint64 epoch = 9;"))
    assert "epoch" in buf("breaking", "--against", str(ROOT / "protos" / "baseline.binpb"), cwd=tmp_path)


@pytest.fixture
def generator() -> object:
    spec = importlib.util.spec_from_file_location("generate_protos", ROOT / "scripts" / "generate_protos.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_code_is_up_to_date(generator: object) -> None:
    assert generator.differences(generator.TARGET) == []


def test_differences_are_found(generator: object, tmp_path: Path) -> None:
    generator.generate(tmp_path)
    (tmp_path / "gateway" / "v1" / "stream_pb2.py").write_text("# edited by hand\n")
    (tmp_path / "types" / "v1" / "gone_pb2.py").write_text("")
    assert generator.differences(tmp_path) == ["gateway/v1/stream_pb2.py", "types/v1/gone_pb2.py"]
