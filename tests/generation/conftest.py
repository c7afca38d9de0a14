"""One tiny model for all tests of this folder."""

from pathlib import Path

import pytest
import torch

from teleworld.generation.model import Model, load_model
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Tiny random networks."""
    root: Path = tmp_path_factory.mktemp("models")
    return load_model("nano", write_tiny_model(root))
