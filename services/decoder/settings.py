"""Settings of the decoder."""

from __future__ import annotations

from services.common.settings import WorkerSettings


class DecoderSettings(WorkerSettings):
    """What every worker has; the decoder needs no more."""
