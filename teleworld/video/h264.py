"""Pictures to H.264 and back, one self-contained chunk at a time.

A chunk is what a decoder worker answers and a client plays: Annex B bytes that start with SPS, PPS and an IDR picture,
so that playback can start, resume or fork at any of them. Each chunk has an encoder of its own. That costs two to
three milliseconds and buys the property that everything above relies on: the bytes are a function of the pixels and
the settings alone, on one build of the library, whichever worker encodes them and whatever it encoded before.

One consequence: chunks of a single picture, one after the other, are IDR pictures with the same `idr_pic_id`. The
access unit delimiter and the parameter sets before each IDR keep them apart; decoders in use accept that.

Pixels are full-range RGB; the video is 4:2:0 BT.709 in limited range, and says so in the bytes. Decoding is meant for
bytes from anywhere: size, length and picture count are bounded before memory is spent on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.codec.context import ThreadType
from av.error import FFmpegError
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

from teleworld.video.annexb import IDR_SLICE, PPS, SEI, SPS, START, nal_units
from teleworld.world.errors import Internal, InvalidInput

Pictures = NDArray[np.uint8]

# The default rounding of the converter darkens by a level each way; these flags make it unbiased and reproducible.
_CONVERSION = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.BITEXACT
)
_MAX_FPS = 240


@dataclass(frozen=True)
class H264Settings:
    """How chunks are encoded. `crf`: constant rate factor, 0 (lossless) to 51; `preset`: an x264 preset name."""

    crf: float = 20.0
    preset: str = "ultrafast"


@dataclass(frozen=True)
class DecodeLimits:
    """The most that `decode_chunk` accepts: bytes of input, pictures, and picture size in pixels."""

    nbytes: int = 16 * 2**20
    frames: int = 64
    width: int = 1920
    height: int = 1920


def frame_rate(fps: float | Fraction) -> Fraction:
    """`fps` as an exact rate, for example 17.5 -> 35/2. Raises InvalidInput unless 0 < fps <= 240."""
    if not 0 < fps <= _MAX_FPS:
        raise InvalidInput("fps", f"must be above 0 and at most {_MAX_FPS}, got {fps}")
    return Fraction(fps).limit_denominator(1001)


def encode_chunk(frames: Pictures, fps: float | Fraction, settings: H264Settings | None = None) -> bytes:
    """Annex B H.264 of `frames`, uint8 [F, H, W, 3] in RGB with F >= 1 and even H and W; starts with SPS, PPS, IDR.

    Equal input gives equal bytes. Raises InvalidInput for another shape or dtype, or a rate out of range.
    """
    settings = settings or H264Settings()
    check_pictures(frames)
    rate = frame_rate(fps)
    encoder = _encoder(frames.shape[2], frames.shape[1], rate, settings)
    converter = VideoReformatter()
    packets: list[bytes] = []
    try:
        for index, picture in enumerate(frames):
            frame = converter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                interpolation=_CONVERSION,
                threads=1,
            )
            frame.pts, frame.time_base = index, 1 / rate
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        packets += [bytes(packet) for packet in encoder.encode(None)]
    except FFmpegError as error:
        raise Internal(f"the H.264 encoder failed: {error}") from error
    # The SEI names the encoder's build and options in 600 bytes of text: half of a small chunk, of use to nobody.
    return b"".join(START + nal.payload for nal in nal_units(b"".join(packets)) if nal.kind != SEI)


def decode_chunk(data: bytes, limits: DecodeLimits | None = None, field: str = "video") -> Pictures:
    """The pictures of an Annex B chunk: uint8 [F, H, W, 3] in RGB.

    Raises InvalidInput naming `field` for bytes that are no H.264 chunk, are damaged or cut off, change size on the
    way, or exceed `limits`. A picture larger than the limits is refused before it is allocated.
    """
    limits = limits or DecodeLimits()
    if len(data) > limits.nbytes:
        raise InvalidInput(field, f"has {len(data)} bytes; at most {limits.nbytes} are decoded")
    if not {SPS, PPS, IDR_SLICE} <= {nal.kind for nal in nal_units(data)}:
        raise InvalidInput(field, "not an H.264 chunk: it must hold SPS, PPS and an IDR picture")
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoder.thread_type = ThreadType.NONE
    decoder.options = {"err_detect": "explode", "max_pixels": str(limits.width * limits.height)}
    converter = VideoReformatter()
    pictures: list[Pictures] = []
    try:
        for packet in [*decoder.parse(data), *decoder.parse(None), None]:
            for frame in decoder.decode(packet):
                pictures.append(_to_rgb(frame, converter, limits, field))
                if len(pictures) > limits.frames:
                    raise InvalidInput(field, f"holds more than {limits.frames} pictures")
    except (FFmpegError, ValueError) as error:
        raise InvalidInput(field, "the H.264 data is damaged or too large") from error
    if not pictures:
        raise InvalidInput(field, "holds no picture")
    if any(picture.shape != pictures[0].shape for picture in pictures):
        raise InvalidInput(field, "the picture size changes within the chunk")
    return np.stack(pictures)


def check_pictures(frames: Pictures, field: str = "frames") -> None:
    """Raise InvalidInput naming `field` unless `frames` is uint8 [F, H, W, 3] that 4:2:0 video can hold."""
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InvalidInput(field, f"expected [F, H, W, 3], got {list(frames.shape)}")
    if frames.dtype != np.uint8:
        raise InvalidInput(field, f"expected uint8, got {frames.dtype}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise InvalidInput(field, f"4:2:0 video needs even sides, got {frames.shape[2]} x {frames.shape[1]}")


def _encoder(width: int, height: int, rate: Fraction, settings: H264Settings) -> av.VideoCodecContext:
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = rate, 1 / rate
    encoder.color_range, encoder.colorspace = ColorRange.MPEG, Colorspace.ITU709
    encoder.color_primaries, encoder.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    encoder.thread_count = 1
    encoder.options = {
        "preset": settings.preset,
        "tune": "zerolatency",
        "crf": str(settings.crf),
        "x264-params": "threads=1:scenecut=0:keyint=infinite:aud=1",
    }
    return encoder


def _to_rgb(frame: av.VideoFrame, converter: VideoReformatter, limits: DecodeLimits, field: str) -> Pictures:
    if frame.width > limits.width or frame.height > limits.height:
        raise InvalidInput(field, f"{frame.width} x {frame.height} exceeds {limits.width} x {limits.height}")
    if frame.is_corrupt:
        raise InvalidInput(field, "the H.264 data is damaged or cut off")
    rgb = converter.reformat(
        frame,
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_CONVERSION,
        threads=1,
    )
    return rgb.to_ndarray().astype(np.uint8, copy=False)
