"""Settings that every worker service has. Each is read from the environment, prefix TELEWORLD_: TELEWORLD_PORT, and so on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from teleworld.rpc.server import ServerConfig
from teleworld.rpc.tls import TlsFiles


class ServiceSettings(BaseSettings):
    """What the gateway and the workers have in common: where to listen, how to end, TLS, telemetry."""

    model_config = SettingsConfigDict(use_attribute_docstrings=True, frozen=True)

    host: str = "127.0.0.1"
    """The interface to listen on; 0.0.0.0 in a container."""
    port: int = Field(default=0, ge=0, le=65535)
    """The port to listen on; 0 chooses a free one, which is announced on stdout."""
    admin_port: int | None = Field(default=None, ge=0, le=65535)
    """A second port for health, reflection and channelz alone; none by default."""
    drain_seconds: float = Field(default=10.0, ge=0)
    """How long calls under way may take to finish after SIGTERM."""
    tls_certificate: str = ""
    """PEM file of this service's certificate chain, read again when it changes; with the two below, calls are by TLS."""
    tls_key: str = ""
    """PEM file of its private key."""
    tls_authority: str = ""
    """PEM file of the authority that signs the certificates of the services."""
    insecure: bool = False
    """Whether plaintext may be served to other machines; without TLS only loopback is, otherwise."""
    otlp_endpoint: str | None = None
    """OTLP gRPC collector as http://host:port; OTEL_EXPORTER_OTLP_ENDPOINT if unset; without either nothing is exported."""
    log_level: str = "INFO"
    """The least severe level that is logged: DEBUG, INFO, WARNING or ERROR."""

    def tls(self) -> TlsFiles | None:
        """The service's own files, which it serves and calls with; None for plaintext. Raises InvalidInput for part of them."""
        return TlsFiles.of(self.tls_certificate, self.tls_key, self.tls_authority)


def listed(text: str) -> tuple[str, ...]:
    """The items of `text`, which are separated by commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


class WorkerSettings(ServiceSettings):
    """Where a worker listens, what it computes with, and how it ends."""

    model_config = SettingsConfigDict(env_prefix="TELEWORLD_")

    model: str = "nano"
    """Name of the model configuration."""
    checkpoint: Path | None = None
    """Folder that holds a folder of weights for each model; by default the shipped ones."""
    threads: int = Field(default=1, ge=1)
    """Intra-op threads of the computation. Part of what makes results reproducible, so all workers of a mesh use the same."""
    device: str = "cpu"
    """Where the networks compute, as torch names it: cpu, cuda or cuda:1."""
    precision: Literal["float32", "bfloat16", "float8"] = "float32"
    """Of weights and arithmetic; float8 keeps the transformer's weights in 8 bits. Worlds pin it as they pin the weights."""
    compile: bool = False
    """Whether to compile the transformer's blocks; the first tasks then take minutes."""
    batch: int = Field(default=4, ge=1, le=64)
    """Tasks of several worlds that a planner or populator may be given in one call, as far as that changes no bit, which is tried
    at the start; 1 tries nothing and takes them one by one."""
    queue: int = Field(default=8, ge=0)
    """Tasks that may wait behind the one that computes; more are refused with a time to come back."""
    shared_memory: bool = True
    """Whether large tensors go through the node's shared memory to and from a gateway that sees the same one."""
    tls_callers: str = "gateway"
    """Who may call: names that a peer's certificate must prove, separated by commas."""

    @property
    def slots(self) -> int:
        """Tasks that a core which computes takes at a time, each on a thread of its own."""
        return 1

    def server(self) -> ServerConfig:
        """Where to listen, to whom, and how to end. Raises InvalidInput for TLS files that are not there."""
        tls = self.tls()
        return ServerConfig(
            host=self.host,
            port=self.port,
            admin_port=self.admin_port,
            drain_seconds=self.drain_seconds,
            tls=tls,
            callers=listed(self.tls_callers) if tls else (),
            insecure=self.insecure,
        )
