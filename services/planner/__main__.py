"""Start the planner: `python -m services.planner`."""

from __future__ import annotations

from services.common.loading import open_model
from services.common.process import main
from services.planner.servicer import PlannerCore, register
from services.planner.settings import PlannerSettings
from teleworld.rpc.convert.common import ModelDescription


def load(settings: PlannerSettings) -> tuple[ModelDescription, PlannerCore]:
    """The core with its weights. Imported here, so that the process listens before torch is loaded."""
    from teleworld.generation.planner import Planner

    description, model = open_model(settings, "dit", "sampling", "vae", "text")
    return description, Planner(model)


if __name__ == "__main__":
    raise SystemExit(main("planner", PlannerSettings, load, register))
