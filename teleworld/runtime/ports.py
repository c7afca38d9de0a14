"""What the dispatcher needs from the outside: workers that compute. One implementation calls them by hand, one over gRPC.

Every method may raise any error of `teleworld.world.errors`; `Unavailable`, `DeadlineExceeded` and `Overloaded` mean that
the same task may be tried again, elsewhere first. `timeout` is in seconds. The methods that end in `_many` are called for
workers that joined with `batches` alone: they answer the requests of several worlds in one call, in their order, each as if
it had been asked by itself; an error is that of all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    GuideRequest,
    GuideResult,
    LatentsResult,
    PlanRequest,
    PopulateRequest,
    Prompt,
    ReconstructRequest,
    ReconstructResult,
)


class PlannerPort(Protocol):
    """Macro and micro planning: tasks I, P and K."""

    async def embed(self, request: EmbedRequest, timeout: float) -> Prompt: ...
    async def encode(self, request: EncodeRequest, timeout: float) -> EncodeResult: ...
    async def plan(self, request: PlanRequest, timeout: float) -> LatentsResult: ...
    async def bridge(self, request: BridgeRequest, timeout: float) -> BridgeResult: ...
    async def plan_many(self, requests: Sequence[PlanRequest], timeout: float) -> Sequence[LatentsResult]: ...


class PopulatorPort(Protocol):
    """Content populating: tasks F1 and F2."""

    async def populate(self, request: PopulateRequest, timeout: float) -> LatentsResult: ...
    async def populate_many(self, requests: Sequence[PopulateRequest], timeout: float) -> Sequence[LatentsResult]: ...


class ReconstructorPort(Protocol):
    """The 4D memory: tasks G and R, and its upkeep."""

    async def guide(self, request: GuideRequest, timeout: float) -> GuideResult: ...
    async def reconstruct(self, request: ReconstructRequest, timeout: float) -> ReconstructResult: ...
    async def fork(self, source: str, revision: int, target: str, timeout: float) -> None: ...
    async def forget(self, world: str, timeout: float) -> None: ...
    def export(self, world: str, revision: int, dynamic_frame: int | None, timeout: float) -> AsyncIterator[bytes]: ...


class DecoderPort(Protocol):
    """Stream-VAE, super-resolution and H.264: task D."""

    async def decode(self, request: DecodeRequest, timeout: float) -> DecodeResult: ...
