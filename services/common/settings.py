"""Settings that every worker service has. Each is read from the environment, prefix TELEWORLD_: TELEWORLD_PORT, and so on."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from teleworld.rpc.server import ServerConfig


class WorkerSettings(BaseSettings):
    """Where a worker listens, what it computes with, and how it ends."""

    model_config = SettingsConfigDict(env_prefix="TELEWORLD_", use_attribute_docstrings=True, frozen=True)

    host: str = "127.0.0.1"
    """The interface to listen on; 0.0.0.0 in a container."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port to listen on; 0 chooses a free one, which is announced on stdout."""
    admin_port: int | None = Field(default=None, ge=0, le=65535)
    """A second port for health, reflection and channelz alone; none by default."""
    model: str = "nano"
    """Name of the model configuration."""
    checkpoint: Path | None = None
    """Folder that holds a folder of weights for each model; by default the shipped ones."""
    threads: int = Field(default=1, ge=1)
    """Intra-op threads of the computation. Part of what makes results reproducible, so all workers of a mesh use the same."""
    queue: int = Field(default=8, ge=0)
    """Tasks that may wait behind the one that computes; more are refused with a time to come back."""
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long calls under way may take to finish after SIGTERM."""
    otlp_endpoint: str | None = None
    """OTLP gRPC collector as http://host:port; OTEL_EXPORTER_OTLP_ENDPOINT if unset; without either nothing is exported."""
    log_level: str = "INFO"
    """The least severe level that is logged: DEBUG, INFO, WARNING or ERROR."""

    def server(self) -> ServerConfig:
        """Where to listen and how to end."""
        return ServerConfig(
            host=self.host, port=self.port, admin_port=self.admin_port, drain_seconds=self.drain_seconds
        )
