"""A tiny model and a start picture for the command line's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny random networks."""
    return write_tiny_model(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def picture() -> Path:
    """A start picture."""
    return sorted((ROOT / "examples" / "start").glob("*.png"))[0]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For child processes: the checkout on the path, and one thread an operation."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
