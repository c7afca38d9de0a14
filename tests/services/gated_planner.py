"""A planner process whose core waits at a named pipe: `python -m tests.services.gated_planner PIPE`.

Plan opens the pipe for reading, which holds until the test opens it for writing, and goes on when the test closes it. With
TELEWORLD_MODEL=slow loading does the same; with TELEWORLD_MODEL=broken it fails.
"""

from __future__ import annotations

import sys
from pathlib import Path

from services.common.process import main
from services.common.settings import WorkerSettings
from services.planner.servicer import PlannerCore, register
from teleworld.rpc.convert.common import ModelDescription
from teleworld.world.errors import CheckpointError
from teleworld.world.work import LatentsResult, PlanRequest
from tests.services.cores import MODEL, SumPlanner


class GatedPlanner(SumPlanner):
    """Plans when the pipe at `gate` is closed by its writer."""

    def __init__(self, pipe: Path) -> None:
        super().__init__()
        self._pipe = pipe

    def plan(self, request: PlanRequest) -> LatentsResult:
        self._pipe.read_bytes()
        return super().plan(request)


def load(settings: WorkerSettings) -> tuple[ModelDescription, PlannerCore]:
    if settings.model == "broken":
        raise CheckpointError("dit.safetensors", "has no blocks")
    if settings.model == "slow":
        Path(sys.argv[1]).read_bytes()
    return MODEL, GatedPlanner(Path(sys.argv[1]))


if __name__ == "__main__":
    raise SystemExit(main("planner", WorkerSettings, load, register))
