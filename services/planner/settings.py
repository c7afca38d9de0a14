"""Settings of the planner."""

from __future__ import annotations

from services.common.settings import WorkerSettings


class PlannerSettings(WorkerSettings):
    """What every worker has; the planner needs no more."""
