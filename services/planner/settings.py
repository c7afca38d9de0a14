"""Settings of the planner."""

from __future__ import annotations

from services.common.settings import WorkerSettings


class PlannerSettings(WorkerSettings):
    """What every worker has, and where prompt embeddings are shared."""

    redis_url: str | None = None
    """A Redis (7 or newer) that keeps prompt embeddings for all planners; without one each planner keeps its own."""
