"""Small real cores: deterministic functions of their requests, in place of networks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np

from teleworld.rpc.convert.common import ModelDescription
from teleworld.world.collision import Clearance
from teleworld.world.errors import NotFound, StateLost
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    Guidance,
    GuideRequest,
    GuideResult,
    LatentsResult,
    PlanRequest,
    PopulateRequest,
    Prompt,
    ReconstructRequest,
    ReconstructResult,
)
from tests.rpc.samples import DIGEST

MODEL = ModelDescription("tiny", DIGEST)


class SumPlanner:
    """Adds what it is given. `gate` holds the computation back when it is cleared; `begun` tells that one began."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.served: list[str] = []

    def embed(self, request: EmbedRequest) -> Prompt:
        codes = np.frombuffer(request.text.encode(), np.uint8).astype(np.float32)
        return Prompt(request.text, codes[:, None] / np.float32(255))

    def encode(self, request: EncodeRequest) -> EncodeResult:
        latent = request.picture[::8, ::8].transpose(2, 0, 1).astype(np.float32)
        return EncodeResult(np.ascontiguousarray(latent), {"encode": 1.0})

    def plan(self, request: PlanRequest) -> LatentsResult:
        self.begun.set()
        assert self.gate.wait(20)
        self.served.append(request.context.task)
        indices = tuple(sorted(request.guidance.indices))
        return LatentsResult(indices, request.guidance.latents + request.prefix, {"plan": 1.0})

    def plan_many(self, requests: Sequence[PlanRequest]) -> list[LatentsResult]:
        return [self.plan(request) for request in requests]

    def bridge(self, request: BridgeRequest) -> BridgeResult:
        return BridgeResult(request.guidance.pixels[3::4], request.keys[-1] + request.prefix, {})


class MeanPopulator:
    """Each latent of the group is the mean of the clean ones."""

    def populate(self, request: PopulateRequest) -> LatentsResult:
        members = request.timeline.members(request.group)
        return LatentsResult(members, np.repeat(request.clean.mean(axis=0, keepdims=True), len(members), axis=0), {})

    def populate_many(self, requests: Sequence[PopulateRequest]) -> list[LatentsResult]:
        return [self.populate(request) for request in requests]


class CountingReconstructor:
    """Keeps the revisions of each world as numbers of pictures."""

    def __init__(self) -> None:
        self.worlds: dict[str, list[int]] = {}

    def guide(self, request: GuideRequest) -> GuideResult:
        self._known(request.context.world, request.revision)
        n = len(request.indices)
        shade = np.full((n * 4, 16, 24, 3), request.revision, np.uint8)
        mask = np.full((n * 4, 16, 24), 255, np.uint8)
        latents = np.full((n, 3, 2, 3), float(request.own_view_only), np.float32)
        return GuideResult(Guidance(request.indices, shade, mask, latents, np.ones((n, 2, 3), np.float32)), {})

    def reconstruct(self, request: ReconstructRequest) -> ReconstructResult:
        pictures = self.worlds.setdefault(request.context.world, [])
        pictures[request.base + 1 :] = [len(request.pictures)]
        return ReconstructResult(request.base + 1, Clearance.open(), 2.0, sum(pictures), 0, {})

    def fork(self, source: str, revision: int, target: str) -> None:
        self.worlds[target] = self._known(source, revision)[: revision + 1]

    def forget(self, world: str) -> None:
        self.worlds.pop(world, None)

    def export(self, world: str, revision: int, dynamic_frame: int | None) -> Iterator[bytes]:
        self._known(world, revision)
        yield b"ply\n"
        yield b"x" * (2**21 + 5)
        yield f"{dynamic_frame}".encode()

    def _known(self, world: str, revision: int) -> list[int]:
        if revision >= len(self.worlds.get(world, [])):
            raise NotFound(f"revision {revision} of {world}")
        return self.worlds[world]


class StatefulDecoder:
    """Holds the last index of each world, and loses the state of every other world."""

    def __init__(self) -> None:
        self._state: dict[str, int] = {}

    def decode(self, request: DecodeRequest) -> DecodeResult:
        world = request.context.world
        if len(request.latents) == 1 < request.index and self._state.get(world) != request.index - 1:
            raise StateLost(f"no state of {world} after latent {request.index - 1}")
        self._state = {world: request.index}
        return DecodeResult(request.latents[-1].tobytes(), 4, 48, 32, {"decode": 0.5})
