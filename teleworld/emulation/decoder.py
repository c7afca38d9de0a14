"""The emulated decoder: latents in order to stamped video, with the state of streams that the real one has."""

from __future__ import annotations

import threading
from collections import OrderedDict

from teleworld.emulation.chain import GUIDANCE, NOBODY, PICTURE, digest, expect, read_latent
from teleworld.emulation.film import FilmStamp, film, warm_up
from teleworld.emulation.generation import read_guidance
from teleworld.emulation.model import EmulatedModel
from teleworld.scheduling.tasks import Kind
from teleworld.world.errors import InvalidInput, StateLost
from teleworld.world.latents import latent_digest
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT
from teleworld.world.work import DecodeRequest, DecodeResult

MAX_STREAMS = 4096
_Mark = tuple[int, int, int, str]


class EmulatedDecoder:
    """Task D. The state of a stream is a digest of the segment so far; who does not hold it raises StateLost."""

    def __init__(self, model: EmulatedModel) -> None:
        self.model = model
        self._streams: OrderedDict[str, tuple[_Mark, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        warm_up(*model.spec.output_size, model.spec.fps)

    def decode(self, request: DecodeRequest) -> DecodeResult:
        """Task D: a chunk of the right size and length; see `teleworld.emulation.film`."""
        context, spec = request.context, self.model.spec
        first = request.index - len(request.latents) + 1
        if first < 1 or not len(request.latents):
            raise InvalidInput("latents", f"{len(request.latents)} latents cannot end with number {request.index}")
        stream = self._resume(request) if first > 1 else digest("stream", context.seed, context.segment)
        # The prefix, one picture sent along to start the stream, is not charged; the history of a replay is.
        decoded = max(1, request.index - max(first, 2) + 1)
        with self.model.busy(Kind.DECODE, [context], decoded) as stages:
            for content in self._contents(request, first):
                stream = digest(stream, *content)
            frames = 1 if request.index == 1 else PIXEL_FRAMES_PER_LATENT
            width, height = spec.output_size
            stamp = FilmStamp(context.seed, context.segment, request.index, stream.hex())
            video = film(width, height, frames, spec.fps, stamp)
            mark = _mark(request)
        self._keep(context.world, mark, stream)
        return DecodeResult(video, frames, width, height, stages)

    def _contents(self, request: DecodeRequest, first: int) -> list[tuple[bytes, bytes]]:
        """For each latent sent its content and that of its guidance."""
        context, guides = request.context, {}
        hinted = tuple(range(max(first, 2), request.index + 1))
        if hinted:
            if request.guidance is None:
                raise InvalidInput("guidance", "is missing")
            guides = dict(zip(hinted, read_guidance(request.guidance, hinted, context), strict=True))
        contents = []
        for row, latent in enumerate(request.latents):
            field, index = f"latents[{row}]", first + row
            stamp = read_latent(latent, field)
            expect(stamp, field, seed=context.seed, segment=context.segment, index=index)
            if stamp.made_by in (GUIDANCE, PICTURE):
                raise InvalidInput(field, "is no clean latent")
            guide = guides.get(index)
            if guide is not None:
                expect(stamp, field, origin=guide.origin)
            contents.append((stamp.content, NOBODY if guide is None else guide.content))
        return contents

    def _resume(self, request: DecodeRequest) -> bytes:
        context = request.context
        wanted: _Mark = (context.epoch, context.segment, request.index - 1, request.previous)
        with self._lock:
            mark, stream = self._streams.get(context.world, (None, NOBODY))
        if mark != wanted:
            raise StateLost(f"no state after latent {request.index - 1} of segment {context.segment}")
        return stream

    def _keep(self, world: str, mark: _Mark, stream: bytes) -> None:
        with self._lock:
            self._streams[world] = (mark, stream)
            self._streams.move_to_end(world)
            while len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)


def _mark(request: DecodeRequest) -> _Mark:
    """Where the stream stands after a request."""
    context = request.context
    return context.epoch, context.segment, request.index, latent_digest(request.latents[-1])
