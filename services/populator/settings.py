"""Settings of the populator."""

from __future__ import annotations

from services.common.settings import WorkerSettings


class PopulatorSettings(WorkerSettings):
    """What every worker has; the populator needs no more."""
