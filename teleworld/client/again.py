"""What a walk says again when the store lost what the gateway had confirmed."""

from __future__ import annotations

from teleworld._proto.gateway.v1.world_service_pb2 import StreamWorldRequest

REWIND_CHUNKS = 256
"""No rewind goes further back: as many chunks as a gateway keeps."""


class Again:
    """The scheduled controls of the last chunks and of those to come, the newest live control, and the newest prompt."""

    def __init__(self) -> None:
        self._scheduled: dict[int, StreamWorldRequest] = {}
        self._held: StreamWorldRequest | None = None
        self._prompt: StreamWorldRequest | None = None

    def said(self, message: StreamWorldRequest) -> None:
        """A control or a prompt goes out."""
        if message.WhichOneof("message") == "prompt":
            self._prompt = message
        elif message.control.HasField("chunk"):
            self._scheduled[message.control.sequence] = message
        else:
            self._held = message

    def shown(self, chunk: int) -> None:
        """A chunk has come: no rewind goes further back than `REWIND_CHUNKS` before it."""
        while self._scheduled:
            oldest = next(iter(self._scheduled))
            if self._scheduled[oldest].control.chunk >= chunk - REWIND_CHUNKS:
                return
            del self._scheduled[oldest]

    def after(self, chunk: int) -> list[StreamWorldRequest]:
        """What counts after `chunk`, in the order in which it was said first."""
        scheduled = {number: said for number, said in self._scheduled.items() if said.control.chunk > chunk}
        if self._held is not None:
            scheduled[self._held.control.sequence] = self._held
        if self._prompt is not None:
            scheduled[self._prompt.prompt.sequence] = self._prompt
        return [scheduled[number] for number in sorted(scheduled)]
