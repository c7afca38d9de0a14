"""The chunk codec: true pixels, the same bytes each time, and no trust in bytes from elsewhere."""

from __future__ import annotations

import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from teleworld.video import DecodeLimits, H264Settings, decode_chunk, encode_chunk
from teleworld.video.annexb import DELIMITER, IDR_SLICE, PPS, SEI, SLICE, SPS, access_units, nal_units, parameter_sets
from teleworld.video.h264 import frame_rate
from teleworld.world.errors import InvalidInput
from tests.video.footage import moving_pictures


@pytest.fixture
def pictures() -> np.ndarray:
    """Four frames of the size that is streamed."""
    return moving_pictures(4)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


def test_round_trip_is_close_and_unbiased(pictures: np.ndarray) -> None:
    shown = decode_chunk(encode_chunk(pictures, 17.5))
    assert shown.shape == pictures.shape and shown.dtype == np.uint8
    assert psnr(shown, pictures) > 40
    assert np.abs(shown.astype(float).mean((0, 1, 2)) - pictures.mean((0, 1, 2))).max() < 0.5


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 140, 200)])
def test_flat_colours_survive(colour: tuple[int, int, int]) -> None:
    """A wrong matrix or range shows in saturated colours first."""
    flat = np.broadcast_to(np.array(colour, np.uint8), (1, 32, 48, 3))
    assert np.abs(decode_chunk(encode_chunk(flat, 30)).astype(int) - flat).max() <= 3


def test_a_chunk_is_self_contained(pictures: np.ndarray) -> None:
    kinds = [nal.kind for nal in nal_units(encode_chunk(pictures, 17.5))]
    assert kinds == [DELIMITER, SPS, PPS, IDR_SLICE] + 3 * [DELIMITER, SLICE]
    assert SEI not in kinds


def test_bytes_depend_on_the_pixels_alone(pictures: np.ndarray) -> None:
    expected = encode_chunk(pictures, 17.5)
    encode_chunk(moving_pictures(2, start=40), 17.5)
    assert encode_chunk(np.asfortranarray(pictures), Fraction(35, 2)) == expected
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(encode_chunk(pictures, 17.5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_chunks_share_their_parameter_sets() -> None:
    first, second = (encode_chunk(moving_pictures(frames, start=frames), 17.5) for frames in (1, 4))
    assert parameter_sets(first) == parameter_sets(second)
    assert [len(access_units(chunk)) for chunk in (first, second)] == [1, 4]


def test_the_stream_says_what_its_colours_are(pictures: np.ndarray) -> None:
    decoder = av.CodecContext.create("h264", "r")
    packets = [*decoder.parse(encode_chunk(pictures, 17.5)), *decoder.parse(None)]
    frame = next(frame for packet in [*packets, None] for frame in decoder.decode(packet))
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 1, 1)  # BT.709, limited


def test_quality_is_a_setting(pictures: np.ndarray) -> None:
    fine, coarse = (encode_chunk(pictures, 17.5, H264Settings(crf=crf)) for crf in (12, 34))
    assert len(fine) > 2 * len(coarse)
    assert psnr(decode_chunk(fine), pictures) > psnr(decode_chunk(coarse), pictures)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 4), np.uint8),
        np.zeros((1, 33, 32, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
    ],
)
def test_encoding_refuses_other_arrays(frames: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="frames"):
        encode_chunk(frames, 17.5)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), 1000])
def test_frame_rates_are_bounded(fps: float) -> None:
    with pytest.raises(InvalidInput, match="fps"):
        frame_rate(fps)


def test_decoding_refuses_what_is_no_chunk() -> None:
    for data in (b"", b"\x00" * 100, b"not a video", b"\x00\x00\x01", b"\x00\x00\x00\x01\x67" * 50):
        with pytest.raises(InvalidInput, match="upload"):
            decode_chunk(data, field="upload")


def test_decoding_refuses_damage(pictures: np.ndarray) -> None:
    data = encode_chunk(pictures, 17.5)
    for cut in (len(data) // 4, len(data) // 2, len(data) - 2):
        with pytest.raises(InvalidInput):
            decode_chunk(data[:cut])


def test_decoding_survives_any_bytes(pictures: np.ndarray) -> None:
    """Random damage is refused or yields pictures of the right shape; nothing else escapes."""
    data = encode_chunk(pictures, 17.5)
    random = np.random.default_rng(0)
    for _ in range(60):
        spoiled = bytearray(data)
        for at in random.integers(len(data), size=4):
            spoiled[at] = random.integers(256)
        try:
            shown = decode_chunk(bytes(spoiled))
        except InvalidInput:
            continue
        assert shown.dtype == np.uint8 and shown.ndim == 4


def test_decoding_is_bounded(pictures: np.ndarray) -> None:
    data = encode_chunk(pictures, 17.5)
    for limits in (DecodeLimits(frames=3), DecodeLimits(width=319), DecodeLimits(height=100), DecodeLimits(nbytes=100)):
        with pytest.raises(InvalidInput, match="video"):
            decode_chunk(data, limits)
    assert len(decode_chunk(data, DecodeLimits(frames=4, width=320, height=192))) == 4


def test_a_size_change_within_a_chunk_is_refused() -> None:
    both = encode_chunk(moving_pictures(1, 64, 64), 17.5) + encode_chunk(moving_pictures(1, 32, 32), 17.5)
    with pytest.raises(InvalidInput, match="size changes"):
        decode_chunk(both)
