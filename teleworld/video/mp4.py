"""Chunks to one MP4 file, without encoding twice.

The chunks that a world streams are H.264 already, and each starts at an IDR with the same parameter sets; the file is
the same bytes in another wrapping, so recording costs next to nothing and loses nothing. The file appears under its
name only when it is complete (a temporary beside it, then a rename), with its index in front so that a browser can
start to play before it has the whole of it. Colour and size are in the stream itself and are copied from there.
"""

from __future__ import annotations

import io
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.error import FFmpegError

from teleworld.video.annexb import AccessUnit, access_units, parameter_sets
from teleworld.video.h264 import H264Settings, Pictures, check_pictures, encode_chunk, frame_rate
from teleworld.world.errors import InvalidInput, PreconditionFailed

# Ticks a frame: players expect a time base finer than the frame rate.
_TICKS = 512


class Mp4Writer:
    """Write chunks to `path` as MP4: H.264, 4:2:0, constant frame rate `fps`.

    A context manager: leaving it normally completes the file, leaving it by an exception removes what was written.
    Not for concurrent use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        fps: float | Fraction,
        settings: H264Settings | None = None,
    ) -> None:
        """`width` x `height` in pixels. `settings` are for pictures; chunks that are H.264 already are copied.

        Raises InvalidInput for a rate out of range, OSError if the folder cannot be written.
        """
        self.path = Path(path)
        self.width, self.height = width, height
        self.rate = frame_rate(fps)
        self.frames = 0
        self._settings = settings
        self._parameters: tuple[bytes, ...] = ()
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp")
        os.close(descriptor)
        self._temporary: Path | None = Path(name)

    def write(self, chunk: bytes | Pictures) -> None:
        """Append a chunk: Annex B bytes as `encode_chunk` makes them, or pictures uint8 [F, H, W, 3] to be encoded.

        Raises InvalidInput for pictures of another size, or bytes that do not start with an IDR or carry other
        parameter sets than the first chunk; nothing is appended then. PreconditionFailed after `close` or `abort`.
        """
        if self._temporary is None:
            raise PreconditionFailed("the video file is closed")
        units = access_units(self._encoded(chunk))
        if not units or not units[0].keyframe:
            raise InvalidInput("chunk", "must start with an IDR picture")
        parameters = parameter_sets(units[0].to_bytes())
        if self._container is None:
            self._open(units[0])
            self._parameters = parameters
        elif parameters != self._parameters:
            raise InvalidInput("chunk", "was encoded with other settings than the chunks before it")
        for unit in units:
            self._mux(unit)

    def close(self) -> None:
        """Complete the file under its name, replacing one that is there. Closing twice is once.

        Raises PreconditionFailed, and leaves no file, if nothing was written.
        """
        if self._temporary is None:
            return
        if self._container is None:
            self.abort()
            raise PreconditionFailed("a video of no frames cannot be saved")
        temporary = self._temporary
        try:
            self._container.close()
            self._container = None
            with open(temporary, "rb") as complete:
                os.fsync(complete.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, self.path)
            self._temporary = None
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the file and free everything. Harmless after `close`."""
        temporary, container = self._temporary, self._container
        self._temporary, self._container = None, None
        if container is not None:
            container.close()
        if temporary is not None:
            temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _encoded(self, chunk: bytes | Pictures) -> bytes:
        if not isinstance(chunk, np.ndarray):
            return chunk
        check_pictures(chunk, "chunk")
        self._check_size(chunk.shape[2], chunk.shape[1])
        return encode_chunk(chunk, self.rate, self._settings)

    def _check_size(self, width: int, height: int) -> None:
        if (width, height) != (self.width, self.height):
            raise InvalidInput("chunk", f"expected {self.width} x {self.height}, got {width} x {height}")

    def _open(self, first: AccessUnit) -> None:
        """Start the file. The library reads size, profile and colour from the first picture's parameter sets."""
        try:
            with av.open(io.BytesIO(first.to_bytes()), format="h264") as source:
                template = source.streams.video[0]
                self._check_size(template.width, template.height)
                container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "+faststart"})
                stream = container.add_stream_from_template(template)
        except (FFmpegError, IndexError) as error:
            raise InvalidInput("chunk", "is no H.264 that can be read") from error
        stream.time_base = 1 / (self.rate * _TICKS)
        self._container, self._stream = container, stream

    def _mux(self, unit: AccessUnit) -> None:
        assert self._container is not None and self._stream is not None
        packet = av.Packet(unit.to_bytes())
        packet.stream = self._stream
        packet.time_base = 1 / self.rate
        packet.pts = packet.dts = self.frames
        packet.duration = 1
        packet.is_keyframe = unit.keyframe
        self._container.mux(packet)
        self.frames += 1
