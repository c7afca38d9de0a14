"""Load a model for a worker, with the thread count that the mesh agreed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.common.settings import WorkerSettings
from teleworld.rpc.convert.common import ModelDescription
from teleworld.runtime.heap import keep_memory

if TYPE_CHECKING:
    from teleworld.generation.model import Model


def open_model(settings: WorkerSettings, *networks: str) -> tuple[ModelDescription, Model]:
    """The model that the settings name, with `networks` (its attributes) in memory, so that no task waits for them.

    Takes seconds: torch is imported here. Raises CheckpointError or InvalidInput.
    """
    keep_memory()
    import torch

    from teleworld.generation.model import load_model
    from teleworld.models.placement import Placement, Precision

    torch.set_num_threads(settings.threads)
    placement = Placement(settings.device, Precision(settings.precision), settings.compile)
    model = load_model(settings.model, settings.checkpoint, placement)
    for network in networks:
        getattr(model, network)
    if "dit" in networks and torch.distributed.is_available() and torch.distributed.is_initialized():
        from teleworld.models.parallel import Ulysses

        model.dit.shard_over(Ulysses())  # the ranks of this worker have met: see services.common.ranks
    return ModelDescription(settings.model, model.digest, model.spec), model
