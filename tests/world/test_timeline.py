"""The table of DESIGN's timeline, to the frame."""

import pytest

from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Group, Timeline

B, C = ChainMode.T_B, ChainMode.T_C


@pytest.mark.parametrize(
    ("latents", "chain", "planned", "first", "second", "shown", "frames"),
    [
        (10, C, (2, 6, 10), (3, 4, 5), (7, 8, 9), 10, (37, 36)),
        (10, B, (2, 6, 10), (3, 4, 5), (), 6, (21, 20)),
        (6, C, (2, 4, 6), (3,), (5,), 6, (21, 20)),
        (6, B, (2, 4, 6), (3,), (), 4, (13, 12)),
    ],
)
def test_layout_for_both_chain_modes(latents, chain, planned, first, second, shown, frames):
    timeline = Timeline.of(latents, chain)
    assert timeline.members(Group.PLAN) == planned
    assert timeline.members(Group.FIRST_HALF) == first
    assert (timeline.members(Group.SECOND_HALF) if Group.SECOND_HALF in timeline.groups else ()) == second
    assert timeline.chunks(0) == tuple(range(1, shown + 1))
    assert timeline.chunks(3) == tuple(range(2, shown + 1))
    counts = [sum(timeline.chunk_frames(timeline.chunk(s, i)) for i in timeline.chunks(s)) for s in (0, 1)]
    assert tuple(counts) == frames
    assert timeline.frames_per_segment == frames[1]


@pytest.mark.parametrize("chain", [B, C])
def test_chunks_number_without_gap_and_map_back(chain):
    timeline = Timeline.of(6, chain)
    numbers = [timeline.chunk(s, i) for s in range(4) for i in timeline.chunks(s)]
    assert numbers == list(range(len(numbers)))
    assert [timeline.locate(n) for n in numbers] == [(s, i) for s in range(4) for i in timeline.chunks(s)]
    assert [timeline.first_chunk(s) for s in range(3)] == [timeline.chunk(s, timeline.chunks(s)[0]) for s in range(3)]
    ends = [timeline.first_frame(n) + timeline.chunk_frames(n) for n in numbers]
    assert [timeline.first_frame(n) for n in numbers[1:]] == ends[:-1]


def test_a_group_sees_only_what_eq_3_gives_it():
    timeline = Timeline.of(10, C)
    assert timeline.visible(Group.PLAN) == (1,)
    assert timeline.visible(Group.FIRST_HALF) == (1, 2, 6), "the first half must not see t_c"
    assert timeline.visible(Group.SECOND_HALF) == (1, 2, 6, 10, 3, 4, 5)


def test_only_shown_key_frames_are_fused():
    assert Timeline.of(10, B).key_frames == (2, 6)
    assert Timeline.of(10, C).key_frames == (2, 6, 10)


def test_an_impossible_layout_is_refused():
    with pytest.raises(InvalidInput, match="timeline"):
        Timeline(latents=6, early=4, middle=4, end=6, chain=B)
