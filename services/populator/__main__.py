"""Start the populator: `python -m services.populator`."""

from __future__ import annotations

from services.common.loading import open_model
from services.common.process import main
from services.populator.servicer import PopulatorCore, register
from services.populator.settings import PopulatorSettings
from teleworld.rpc.convert.common import ModelDescription


def load(settings: PopulatorSettings) -> tuple[ModelDescription, PopulatorCore]:
    """The core with its weights. Imported here, so that the process listens before torch is loaded."""
    from teleworld.generation.populator import Populator

    description, model = open_model(settings, "dit", "sampling")
    return description, Populator(model)


if __name__ == "__main__":
    raise SystemExit(main("populator", PopulatorSettings, load, register))
