"""Start the populator: `python -m services.populator`."""

from __future__ import annotations

from dataclasses import replace

from services.common.loading import open_model
from services.common.ranks import Call, Calls, serve
from services.populator.servicer import PopulatorCore, register
from services.populator.settings import PopulatorSettings
from teleworld._proto.populator.v1 import populator_pb2 as pb
from teleworld.rpc.convert import populator as convert
from teleworld.rpc.convert.common import ModelDescription

CALLS: Calls = {
    "populate": Call(pb.PopulateRequest, convert.write_populate_request, convert.read_populate_request),
    "populate_many": Call(
        pb.PopulateManyRequest, convert.write_populate_many_request, convert.read_populate_many_request
    ),
}


def load(settings: PopulatorSettings) -> tuple[ModelDescription, PopulatorCore]:
    """The core with its weights. Imported here, so that the process listens before torch is loaded."""
    from services.common.batching import populator_batches
    from services.common.rehearsal import rehearse_populator
    from teleworld.generation.populator import Populator

    description, model = open_model(settings, "dit", "sampling")
    core = Populator(model)
    rehearse_populator(core)
    return replace(description, batches=populator_batches(core, settings.batch)), core


if __name__ == "__main__":
    raise SystemExit(serve("populator", PopulatorSettings, load, register, CALLS))
