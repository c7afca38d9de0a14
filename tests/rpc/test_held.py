"""Tensors that are handed on by name: every reader gets the values, nothing is read in between, and nothing stays behind."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from teleworld._proto.types.v1 import tensor_pb2 as pb
from teleworld.rpc import link
from teleworld.rpc.held import Held
from teleworld.rpc.segments import Segments
from teleworld.rpc.tensors import read_tensor, write_tensor
from teleworld.world.errors import InvalidInput, Unavailable
from teleworld.world.latents import latent_digest
from teleworld.world.work import Guidance

VALUES = np.random.default_rng(0).standard_normal((6, 4, 10, 10), np.float32)
SHAPE = (None, 4, None, None)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Segments]:
    """The segments of the process that hands on."""
    segments = Segments(tmp_path)
    yield segments
    gc.collect()
    segments.close()
    assert list(tmp_path.iterdir()) == [], "nothing outlives what it belongs to"


@pytest.fixture
def maker(tmp_path: Path, relay: Segments) -> Iterator[Segments]:
    """Those of a worker that makes a tensor."""
    segments = Segments(tmp_path)
    yield segments
    segments.close()


@pytest.fixture
def reader(tmp_path: Path, relay: Segments) -> Iterator[Segments]:
    """Those of the worker that needs it."""
    segments = Segments(tmp_path)
    yield segments
    segments.close()


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def received(relay: Segments, maker: Segments) -> Held:
    with link.over(link.Route(maker, inline=0)):
        message = write_tensor(VALUES, "x")
    with link.over(link.Route(relay, inline=0)):
        held = read_tensor(message, "x", np.float32, SHAPE, held=True)
    assert isinstance(held, Held)
    return held


def sent(relay: Segments, held: Held) -> tuple[pb.Tensor, link.Route]:
    route = link.Route(relay, inline=0)
    with link.over(route):
        return write_tensor(held, "x"), route


def read(reader: Segments, message: pb.Tensor) -> np.ndarray:
    with link.over(link.Route(reader, inline=0)):
        return read_tensor(message, "x", np.float32, SHAPE)


def test_every_reader_gets_the_values_of_one_file(
    relay: Segments, maker: Segments, reader: Segments, tmp_path: Path
) -> None:
    held = received(relay, maker)
    (name,) = files(tmp_path)
    assert maker.waiting == 0, "it is the relay's now"
    for _ in range(2):  # a task that is tried again, or started twice
        message, route = sent(relay, held)
        assert message.shared_memory.name == name
        assert np.array_equal(read(reader, message), VALUES)
        route.discard()
    assert files(tmp_path) == [name]
    assert relay.nbytes == VALUES.nbytes
    del held
    gc.collect()
    assert files(tmp_path) == []
    assert relay.nbytes == 0


@pytest.mark.parametrize("rows", [slice(0, 6), slice(2, 4), [5], [0, 2, 5]], ids=str)
def test_parts_are_handed_on_like_the_whole(relay: Segments, maker: Segments, reader: Segments, rows: object) -> None:
    part = received(relay, maker)[rows]
    expected = VALUES[rows]
    assert (part.shape, part.nbytes, len(part)) == (expected.shape, expected.nbytes, len(expected))
    message, route = sent(relay, part)
    assert message.WhichOneof("payload") == "shared_memory"
    assert np.array_equal(read(reader, message), expected)
    assert np.array_equal(np.asarray(part), expected)
    route.discard()


def test_guidance_is_parted_without_being_read(relay: Segments, maker: Segments) -> None:
    held = received(relay, maker)
    none = np.zeros((0, 0, 0), np.uint8)
    guidance = Guidance((2, 3, 4, 5, 6, 7), none[..., None], none, held, VALUES[:, 0])  # type: ignore[arg-type]
    for indices in ((3, 4), (2, 4, 7)):
        part = guidance.of(indices, pictures=False)
        assert isinstance(part.latents, Held)
        assert np.array_equal(np.asarray(part.latents), VALUES[[index - 2 for index in indices]])


def test_rows_by_themselves_are_arrays_for_numpy_and_rows_again_for_the_next_reader(
    relay: Segments, maker: Segments, reader: Segments
) -> None:
    rows = list(received(relay, maker))
    assert [row.shape for row in rows] == [VALUES.shape[1:]] * len(VALUES)
    assert np.array_equal(np.stack(rows[1:3]), VALUES[1:3])
    assert latent_digest(rows[4]) == latent_digest(VALUES[4])
    message, route = sent(relay, rows[4][None])
    assert message.WhichOneof("payload") == "shared_memory"
    assert np.array_equal(read(reader, message), VALUES[4:5])
    route.discard()


def test_who_sees_no_shared_memory_gets_the_values_in_the_message(relay: Segments, maker: Segments) -> None:
    message = write_tensor(received(relay, maker), "x")
    assert message.WhichOneof("payload") == "inline"
    assert np.array_equal(read_tensor(message, "x", np.float32, SHAPE), VALUES)


def test_what_is_kept_for_long_moves_into_the_process_unless_somebody_is_about_to_read_it(
    maker: Segments, reader: Segments, tmp_path: Path
) -> None:
    hasty = Segments(tmp_path, kept=0.0)
    held = received(hasty, maker)
    message, route = sent(hasty, held)
    hasty.sweep()
    assert np.array_equal(read(reader, message), VALUES), "a call under way keeps the file"
    route.discard()
    hasty.sweep()
    assert files(tmp_path) == []
    assert hasty.nbytes == 0
    assert np.array_equal(np.asarray(held[[1, 3]]), VALUES[[1, 3]])
    message, route = sent(hasty, held)
    assert np.array_equal(read(reader, message), VALUES), "and is written anew for whoever asks later"
    hasty.close()


def test_without_room_it_is_read_at_once(tmp_path: Path, maker: Segments) -> None:
    full = Segments(tmp_path, budget=1)
    with link.over(link.Route(maker, inline=0)):
        message = write_tensor(VALUES, "x")
    with link.over(link.Route(full, inline=0)):
        array = read_tensor(message, "x", np.float32, SHAPE, held=True)
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, VALUES)
    full.close()


@pytest.mark.parametrize(
    ("offsets", "length", "field"),
    [
        ([0, 4], VALUES.nbytes * 2, "x.offsets"),
        ([VALUES.nbytes], 4, "x.offsets"),
        ([2**63], 4, "x.offsets"),
        ([0, 8, 16], 4, "x.length"),
        ([0, 8], 0, "x.length"),
    ],
)
def test_parts_beyond_the_segment_are_refused(
    relay: Segments, maker: Segments, reader: Segments, offsets: list[int], length: int, field: str
) -> None:
    held = received(relay, maker)
    with pytest.raises(InvalidInput) as caught:
        reader.peek(held.kept.name, offsets, length, "x")
    assert caught.value.field == field


def test_each_row_has_its_place(relay: Segments, maker: Segments, reader: Segments) -> None:
    message, _ = sent(relay, received(relay, maker))
    del message.shared_memory.offsets[1:]
    with pytest.raises(InvalidInput, match="6 rows") as caught:
        read(reader, message)
    assert caught.value.field == "x.shared_memory.offsets"


def test_a_reader_that_comes_too_late_may_try_again(relay: Segments, maker: Segments, reader: Segments) -> None:
    held = received(relay, maker)
    message, route = sent(relay, held)
    route.discard()
    del held, route
    gc.collect()
    with pytest.raises(Unavailable, match="gone"):
        read(reader, message)
