"""Settings of the decoder."""

from __future__ import annotations

from pydantic import Field

from services.common.settings import WorkerSettings


class DecoderSettings(WorkerSettings):
    """What every worker has, and where the networks run."""

    pipeline: int = Field(default=1, ge=1, le=4)
    """Chunks at a time, of different worlds: with 2, one is upscaled and made into H.264 while the next is decoded. Pays where
    there are worlds and cores (or a GPU) to spare for it."""
    triton_url: str | None = None
    """host:port of a Triton Inference Server's gRPC endpoint that serves the repository of `teleworld triton export`; unset,
    the networks run in this process."""
    triton_timeout_seconds: float = Field(default=20.0, gt=0)
    """How long Triton may take for one latent, and at the start until its models are ready."""
    triton_shared_memory: bool = True
    """Pass tensors through shared memory if Triton can open it (one pod, one /dev/shm); otherwise inline."""

    @property
    def slots(self) -> int:
        """One a chunk of the pipeline."""
        return self.pipeline
