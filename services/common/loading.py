"""Load a model for a worker, with the thread count that the mesh agreed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.common.settings import WorkerSettings
from teleworld.rpc.convert.common import ModelDescription

if TYPE_CHECKING:
    from teleworld.generation.model import Model


def open_model(settings: WorkerSettings, *networks: str) -> tuple[ModelDescription, Model]:
    """The model that the settings name, with `networks` (its attributes) in memory, so that no task waits for them.

    Takes seconds: torch is imported here. Raises CheckpointError or InvalidInput.
    """
    import torch

    from teleworld.generation.model import load_model

    torch.set_num_threads(settings.threads)
    model = load_model(settings.model, settings.checkpoint)
    for network in networks:
        getattr(model, network)
    return ModelDescription(settings.model, model.digest), model
