"""Settings of the decoder."""

from __future__ import annotations

from pydantic import Field

from services.common.settings import WorkerSettings


class DecoderSettings(WorkerSettings):
    """What every worker has, and where the networks run."""

    triton_url: str | None = None
    """host:port of a Triton Inference Server's gRPC endpoint that serves the repository of `teleworld triton export`; unset,
    the networks run in this process."""
    triton_timeout_seconds: float = Field(default=20.0, gt=0)
    """How long Triton may take for one latent, and at the start until its models are ready."""
    triton_shared_memory: bool = True
    """Pass tensors through shared memory if Triton can open it (one pod, one /dev/shm); otherwise inline."""
