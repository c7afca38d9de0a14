"""The emulated 4D memory: a chain of digests of what was fused, in the real store with its epochs, revisions and forks.

A revision holds one surfel a key frame and a small picture whose bytes are the state; the millions of surfels of a real
memory are left out, because the store's cost depends on them and not the mesh's.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teleworld.emulation.chain import (
    GUIDANCE,
    NOBODY,
    PICTURE,
    Stamp,
    digest,
    expect,
    grain,
    read_picture,
    write_latent,
)
from teleworld.emulation.model import EmulatedModel
from teleworld.memory.export import ply
from teleworld.memory.points import EMPTY_REVISION, Field, FieldDelta, KeyView, PointCloud
from teleworld.memory.quantise import RADIUS_CODES, snap_positions
from teleworld.memory.store import MemoryStore
from teleworld.scheduling.tasks import Kind
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.errors import InvalidInput
from teleworld.world.work import Guidance, GuideRequest, GuideResult, ReconstructRequest, ReconstructResult

MEDIAN_DEPTH_M = 6.0
MAX_CACHED = 1024
_STATE = struct.Struct("<q16s16s")
_VIEW = (2, 8)
"""Height and width of the picture that holds a state: 48 bytes in 16 RGB pixels."""


@dataclass(frozen=True)
class State:
    """What the memory of a world knows. fused: the newest segment in it, -1 for the start picture alone. last: the content of
    the newest picture. chain: a digest of everything fused so far."""

    fused: int
    last: bytes
    chain: bytes


class EmulatedReconstructor:
    """Tasks G and R, and the memory's upkeep. Raises InvalidInput for wrong inputs, else what the store raises."""

    def __init__(self, model: EmulatedModel, store: MemoryStore) -> None:
        self.model = model
        self.store = store
        self._fields: OrderedDict[tuple[str, int, int], Field] = OrderedDict()
        self._lock = threading.Lock()

    def guide(self, request: GuideRequest) -> GuideResult:
        """Task G: what the memory at `request.revision` shows from the commanded cameras, encoded."""
        context, indices = request.context, request.indices
        request.path.check("path", 4 * len(indices))
        with self.model.busy(Kind.GUIDE, [context], len(indices)) as stages:
            state = _state_of(self._field(context.world, context.epoch, request.revision))
            if context.segment > 1 and state.fused >= context.segment:
                raise InvalidInput("revision", f"already holds segment {state.fused}, which comes later")
            shape = self.model.spec.latent_shape
            latents = np.empty((len(indices), *shape), np.float32)
            for row, index in enumerate(indices):
                cameras = request.path[4 * row : 4 * row + 4]
                content = digest("guide", state.chain, request.own_view_only, index, *_cameras(cameras))
                latents[row] = write_latent(
                    Stamp(GUIDANCE, context.seed, context.segment, index, state.fused, 0, state.last, content), shape
                )
            frames = (4 * len(indices), *shape[1:])
            guidance = Guidance(
                indices,
                pixels=grain(digest("pixels", state.chain), (*frames, 3)),
                mask=np.full(frames, 255, np.uint8),
                latents=latents,
                coverage=np.ones((len(indices), *shape[1:]), np.float32),
            )
        return GuideResult(guidance, stages)

    def reconstruct(self, request: ReconstructRequest) -> ReconstructResult:
        """Task R: fuse the key frames of a segment, or the start picture, and make the next revision."""
        context, base = request.context, request.base
        request.path.check("path", len(request.pictures))
        kind = Kind.BOOTSTRAP if base == EMPTY_REVISION else Kind.RECONSTRUCT
        with self.model.busy(kind, [context], len(request.pictures)) as stages:
            before = Field() if base == EMPTY_REVISION else self._field(context.world, context.epoch, base)
            state = self._fuse(before, request)
            delta = _delta(before, state, request)
            after = delta.apply(before)
            self.store.append(context.world, context.epoch, delta, after)
            self._keep((context.world, context.epoch, after.revision), after)
        return ReconstructResult(
            revision=after.revision,
            clearance=Clearance.open(),
            median_depth=MEDIAN_DEPTH_M,
            static_points=len(after.static),
            dynamic_points=0,
            stage_ms=stages,
        )

    def fork(self, source: str, revision: int, target: str) -> None:
        """Give `target` a memory of its own that starts as `source` was at `revision`."""
        self.store.fork(source, revision, target)

    def forget(self, world: str) -> None:
        """Drop everything of a world."""
        self.store.drop(world)
        with self._lock:
            for key in [key for key in self._fields if key[0] == world]:
                del self._fields[key]

    def export(self, world: str, revision: int, dynamic_frame: int | None) -> Iterator[bytes]:
        """A PLY file in pieces; nothing moves in an emulated world."""
        return ply((self.store.load(world, revision).static,))

    def _fuse(self, before: Field, request: ReconstructRequest) -> State:
        context = request.context
        inputs: tuple[int | NDArray[np.float64], ...] = (*request.frames, *_cameras(request.path))
        if before.revision == EMPTY_REVISION:
            start = digest("start", request.pictures[-1])
            return State(-1, start, digest("bootstrap", start, *inputs))
        state = _state_of(before)
        if context.segment and state.fused != context.segment - 1:
            raise InvalidInput("base", f"holds segment {state.fused}; the task needs {context.segment - 1}")
        stamps = [read_picture(picture, f"pictures[{row}]") for row, picture in enumerate(request.pictures)]
        for row, stamp in enumerate(stamps):
            expect(stamp, f"pictures[{row}]", made_by=PICTURE, seed=context.seed, segment=context.segment)
            if row and stamp.index <= stamps[row - 1].index:
                raise InvalidInput(f"pictures[{row}]", "key frames must ascend")
        last = stamps[-1]
        expect(last, f"pictures[{len(stamps) - 1}]", ended=last.index)
        contents = (stamp.content for stamp in stamps)
        return State(context.segment, last.content, digest("fuse", state.chain, *contents, *inputs))

    def _field(self, world: str, epoch: int, revision: int) -> Field:
        """A revision; a new epoch reads the store anew, as the real memory does."""
        key = (world, epoch, revision)
        with self._lock:
            if (held := self._fields.get(key)) is not None:
                self._fields.move_to_end(key)
                return held
        loaded = self.store.load(world, revision)
        self._keep(key, loaded)
        return loaded

    def _keep(self, key: tuple[str, int, int], field: Field) -> None:
        with self._lock:
            self._fields[key] = field
            while len(self._fields) > MAX_CACHED:
                self._fields.popitem(last=False)


def _cameras(path: CameraPath) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return path.camera_to_world, path.intrinsics


def _state_of(field: Field) -> State:
    if field.view is None:
        return State(-1, NOBODY, NOBODY)
    packed = field.view.picture.tobytes()[: _STATE.size]
    return State(*_STATE.unpack(packed))


def _delta(before: Field, state: State, request: ReconstructRequest) -> FieldDelta:
    """The change of the stored field: a surfel where each key frame was taken, and the state as the newest view."""
    count = len(request.pictures)
    picture = np.zeros((*_VIEW, 3), np.uint8)
    packed = np.frombuffer(_STATE.pack(state.fused, state.last, state.chain), np.uint8)
    picture.reshape(-1)[: len(packed)] = packed
    ids = np.arange(before.next_id, before.next_id + count, dtype=np.int64)
    added = PointCloud(
        positions=snap_positions(request.path.camera_to_world[:, :3, 3]),
        tangents=np.zeros((count, 2, 3), np.int8),
        colours=np.full((count, 3), 128, np.uint8),
        radius=np.full(count, RADIUS_CODES[len(RADIUS_CODES) // 2], np.float32),
        confidence=np.full(count, 255, np.uint8),
        frame=np.array(request.frames, np.int32),
        drift=np.zeros((count, 2), np.int8),
        ids=ids,
    )
    nobody = np.zeros(0, np.int64)
    view = KeyView(request.frames[-1], picture, np.zeros(_VIEW, np.float16), request.path[-1:])
    return FieldDelta(
        revision=before.revision + 1,
        next_id=before.next_id + count,
        added=added,
        removed=nobody,
        weakened=nobody,
        confidence=np.zeros(0, np.uint8),
        dynamic=(),
        view=view,
    )
