"""The MP4 writer: the chunks' own bytes, right times, and a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from teleworld.video import H264Settings, Mp4Writer, decode_chunk, encode_chunk
from teleworld.video.annexb import IDR_SLICE, SLICE, nal_units
from teleworld.world.errors import InvalidInput, PreconditionFailed
from tests.video.footage import moving_pictures

SIZE = {"height": 48, "width": 64}
CHUNKS = (1, 4, 4, 2)


def chunks() -> list[bytes]:
    starts = np.cumsum([0, *CHUNKS])
    return [
        encode_chunk(moving_pictures(frames, start=int(start), **SIZE), 17.5)
        for frames, start in zip(CHUNKS, starts, strict=False)
    ]


def read(path: Path) -> tuple[np.ndarray, list[float]]:
    """Pictures and their times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="yuv420p") for frame in frames]), [float(frame.time) for frame in frames]


def slices(stream: bytes) -> list[bytes]:
    return [nal.payload for nal in nal_units(stream) if nal.kind in (SLICE, IDR_SLICE)]


def test_chunks_are_copied_not_encoded_again(tmp_path: Path) -> None:
    path, sent = tmp_path / "walk.mp4", chunks()
    with Mp4Writer(path, fps=17.5, **SIZE) as writer:
        for chunk in sent:
            writer.write(chunk)
        assert writer.frames == sum(CHUNKS)
    stored = path.read_bytes()
    assert all(payload in stored for chunk in sent for payload in slices(chunk))
    shown, times = read(path)
    assert len(shown) == sum(CHUNKS)
    assert np.allclose(times, np.arange(sum(CHUNKS)) / 17.5, atol=1e-4)


def test_the_file_suits_every_player(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    with Mp4Writer(path, fps=17.5, **SIZE) as writer:
        for chunk in chunks():
            writer.write(chunk)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 64, 48)
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        assert float(stream.average_rate) == 17.5 and stream.frames == sum(CHUNKS)
        assert float(stream.duration * stream.time_base) == pytest.approx(sum(CHUNKS) / 17.5, abs=1e-4)
        keys = [packet.is_keyframe for packet in container.demux(stream) if packet.size]
    assert [number for number, key in enumerate(keys) if key] == [0, 1, 5, 9]
    stored = path.read_bytes()
    assert 0 < stored.find(b"moov") < stored.find(b"mdat")  # the index comes first


def test_pictures_may_be_written_too(tmp_path: Path) -> None:
    pictures = moving_pictures(3, **SIZE)
    with Mp4Writer(tmp_path / "walk.mp4", fps=17.5, **SIZE) as writer:
        writer.write(pictures)
        writer.write(encode_chunk(pictures, 17.5))
    shown, _ = read(tmp_path / "walk.mp4")
    assert np.array_equal(shown[:3], shown[3:])
    assert len(decode_chunk(encode_chunk(pictures, 17.5))) == 3


def test_nothing_appears_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    writer = Mp4Writer(path, fps=17.5, **SIZE)
    writer.write(chunks()[0])
    assert not path.exists()
    writer.close()
    writer.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["walk.mp4"]
    with pytest.raises(PreconditionFailed):
        writer.write(chunks()[0])


def test_a_failed_recording_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    path.write_bytes(b"yesterday's walk")
    with pytest.raises(RuntimeError, match="stream lost"), Mp4Writer(path, fps=17.5, **SIZE) as writer:
        writer.write(chunks()[0])
        raise RuntimeError("stream lost")
    assert path.read_bytes() == b"yesterday's walk"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_empty_recording_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(PreconditionFailed, match="no frames"), Mp4Writer(tmp_path / "walk.mp4", fps=17.5, **SIZE):
        pass
    assert not list(tmp_path.iterdir())


def test_foreign_chunks_are_refused(tmp_path: Path) -> None:
    first, second = chunks()[:2]
    behind_the_key = second[second.find(b"\x00\x00\x00\x01\x09", 4) :]
    other_size = encode_chunk(moving_pictures(1, 32, 32), 17.5)
    other_settings = encode_chunk(moving_pictures(1, **SIZE), 17.5, H264Settings(preset="medium"))
    with Mp4Writer(tmp_path / "walk.mp4", fps=17.5, **SIZE) as writer:
        for chunk in (b"", b"nothing", behind_the_key, other_size, moving_pictures(1, 32, 32)):
            with pytest.raises(InvalidInput, match="chunk"):
                writer.write(chunk)
        writer.write(first)
        for chunk in (other_size, other_settings):
            with pytest.raises(InvalidInput, match="chunk"):
                writer.write(chunk)
        writer.write(second)
    assert len(read(tmp_path / "walk.mp4")[0]) == 5
