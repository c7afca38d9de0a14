"""Settings of the gateway. Each is read from the environment, prefix TELEWORLD_GATEWAY_: TELEWORLD_GATEWAY_PORT, and so on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings, listed
from teleworld.rpc.server import ServerConfig
from teleworld.scheduling.tasks import Pool

MAX_REQUEST_BYTES = 16 * 2**20
"""Of the public API: a start picture and little else; tensors never come from there."""


class GatewaySettings(ServiceSettings):
    """Where the gateway listens, where its workers and its store are, and how much it takes on."""

    model_config = SettingsConfigDict(env_prefix="TELEWORLD_GATEWAY_")

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The Redis (7 or newer) that holds worlds: redis://, rediss:// or unix://, with user and password if needed."""
    planner_addresses: str = ""
    """Addresses of the planners, host:port, separated by commas."""
    populator_addresses: str = ""
    """Addresses of the populators, host:port, separated by commas."""
    reconstructor_addresses: str = ""
    """Addresses of the reconstructors, host:port, separated by commas."""
    decoder_addresses: str = ""
    """Addresses of the decoders, host:port, separated by commas."""
    discovery: Literal["static", "kubernetes"] = "static"
    """How workers are found: at fixed addresses, or as the pods behind Services, by the Kubernetes API. Then each of the four
    settings above is one Service, name.namespace:port."""
    zone: str = ""
    """The zone of this gateway, whose workers are preferred where Kubernetes hints so; empty asks the API for the pod's own."""
    kubernetes_api: str = ""
    """URL of an API server that asks for no credentials, such as a kubectl proxy; empty uses the pod's service account."""
    lease_name: str = "teleworld-gateway"
    """The Lease by which replicas elect the one that keeps the store tidy; in the pod's namespace."""
    scale: str = ""
    """Pools that the leading gateway sizes itself, by the Kubernetes API: pool=deployment:least:most:tasks:seconds, separated by
    commas. tasks: that one pod should have; seconds: how long fewer pods must be enough. None by default."""
    scaler_port: int | None = Field(default=None, ge=0, le=65535)
    """The port of KEDA's external scaler; none by default."""
    weights_digest: str = ""
    """New worlds are born with these weights; empty takes the newest that every pool has. Old worlds keep theirs as long as
    workers have them."""
    worker_slots: int = Field(default=1, ge=1)
    """Tasks that one worker is given for each that it does at a time; with two, the next one is there when one ends."""
    worker_patience_seconds: float = Field(default=10.0, ge=0)
    """How long a call waits for a worker to appear before it is answered UNAVAILABLE."""
    max_worlds: int = Field(default=10_000, ge=1)
    """Worlds that the store may hold; creating more is refused."""
    max_streams: int = Field(default=64, ge=1)
    """Worlds that are driven at a time by this gateway; more attachments are refused with a time to come back."""
    utilisation: float = Field(default=0.9, ge=0)
    """How full real-time worlds may make a worker pool, by measured service times, before one more is refused; 0: no matter."""
    max_spectators: int = Field(default=256, ge=1)
    """Spectators at a time of this gateway."""
    api_keys_file: str = ""
    """A YAML file of API keys (their SHA-256, tenant, permissions and quota), read again when it changes; none by default."""
    stored_api_keys: bool = False
    """Whether API keys are looked up in Redis too."""
    jwks: str = ""
    """The identity provider's public keys, a file or an http(s) URL; then its tokens are accepted."""
    issuer: str = ""
    """The `iss` that a provider's token must carry."""
    audience: str = ""
    """The `aud` that a provider's token must carry."""
    tenant_claim: str = "tenant"
    """The claim of a provider's token that names the tenant."""
    lease_seconds: float = Field(default=10.0, gt=0)
    """How long a world's lease lasts without renewal; it is renewed after half of it."""
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    """A stream that was silent for this long is sent a heartbeat."""
    ack_timeout_seconds: float = Field(default=30.0, gt=0)
    """A stream whose credit is used up ends when no ack comes within this time."""
    idle_timeout_seconds: float = Field(default=300.0, gt=0)
    """A stream whose client says nothing for this long ends."""
    solo_idle_seconds: float = Field(default=60.0, gt=0)
    """A walk that is driven by SendControls alone ends when no control comes for this long."""
    chunk_retention: int = Field(default=256, ge=64)
    """Chunks of a world that are kept for resume, forks and spectators."""
    chunk_retention_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """The most bytes of chunks that are kept of one world."""
    world_bytes: int = Field(default=96 * 2**20, ge=2**20)
    """What a world counts against a tenant's quota of memory: the most that its chunks, log and 4D memory take of the store."""
    log_retention: int = Field(default=64, ge=4)
    """Segments of a world's log (bindings, plans, clearance) that are kept: how far back a fork may reach."""
    world_ttl_seconds: float = Field(default=7 * 86400.0, gt=0)
    """A world that nobody streams for this long is dropped from the store."""
    request_ttl_seconds: float = Field(default=86400.0, gt=0)
    """How long a request_id makes its call idempotent."""
    shared_memory: bool = True
    """Whether large tensors go through the node's shared memory to and from workers that see the same one."""

    @field_validator("redis_url")
    @classmethod
    def _is_of_redis(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    def server(self) -> ServerConfig:
        """Where to listen and how to end. Streams have no deadline, so none is required."""
        return ServerConfig(
            host=self.host,
            port=self.port,
            admin_port=self.admin_port,
            drain_seconds=self.drain_seconds,
            require_deadline=False,
            max_message_bytes=MAX_REQUEST_BYTES,
            tls=self.tls(),
            insecure=self.insecure,
        )

    def addresses(self) -> dict[Pool, tuple[str, ...]]:
        """The configured worker addresses of each pool."""
        given = {
            Pool.PLANNER: self.planner_addresses,
            Pool.POPULATOR: self.populator_addresses,
            Pool.RECONSTRUCTOR: self.reconstructor_addresses,
            Pool.DECODER: self.decoder_addresses,
        }
        return {pool: listed(text) for pool, text in given.items()}
