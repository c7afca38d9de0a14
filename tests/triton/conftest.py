"""One Triton server for the tests of this folder, with the exported repository of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from teleworld.generation.model import Model, load_model
from teleworld.generation.triton_repository import ExportOptions, export_repository
from tests.tiny_model import write_tiny_model
from tests.triton.server import Triton, installation, python_env, serving


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Tiny random networks."""
    return load_model("nano", write_tiny_model(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="session")
def triton(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """The server. A test that kills it starts it again."""
    installation()
    folder: Path = tmp_path_factory.mktemp("triton")
    export_repository(model, folder / "repository", ExportOptions(python_env=python_env(folder / "python"), streams=2))
    with serving(folder / "repository", folder) as server:
        server.wait()
        yield server
