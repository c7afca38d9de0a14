"""The timeline of six latents, to the frame."""

import pytest

from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode, Group, Stage, Timeline

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
        Timeline.planned(6, 4, 4, 6, B)


def test_frame_by_frame_every_latent_sees_all_before_it_and_the_same_key_frames_are_fused():
    timeline = Timeline.of(6, ChainMode.AUTOREGRESSIVE)
    assert [timeline.members(group) for group in timeline.groups] == [(2,), (3,), (4,), (5,), (6,)]
    assert [timeline.visible(group) for group in timeline.groups] == [tuple(range(1, index)) for index in range(2, 7)]
    assert (timeline.key_frames, timeline.boundary) == (Timeline.of(6, C).key_frames, 6)
    assert timeline.chunks(1) == Timeline.of(6, C).chunks(1)


def test_the_orders_that_mmpl_released_can_be_told():
    """REFERENCE, MMPL: I2V, 21 latents; the first half does not see the end of the plan, the second half sees all."""
    order = [0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 2, 4, 4, 4, 4, 4, 4, 2, 2]
    timeline = Timeline.ordered(order, (2, 3, 12, 20))
    assert [len(timeline.members(group)) for group in range(5)] == [1, 1, 7, 6, 6]
    assert timeline.visible(2) == (1, 2)
    assert timeline.visible(3) == (1, 2, 3, 4, 11, 12, 13)
    assert timeline.visible(4) == (1, 2, 3, 4, 11, 12, 13, 20, 21, *range(5, 11))
    assert timeline.groups == (1, 2, 3, 4) and timeline.last_shown == 20


@pytest.mark.parametrize("chain", [B, C])
@pytest.mark.parametrize("latents", [6, 10, 21])
def test_the_papers_layout_is_a_special_case_of_an_order(latents, chain):
    paper = Timeline.of(latents, chain)
    order = [0, *(paper.group_of(index) for index in range(2, latents + 1))]
    assert Timeline.ordered(order, paper.key_frames) == paper


def test_a_cut_segment_ends_with_a_key_frame_and_makes_only_what_it_shows():
    timeline = Timeline.of(10, C).cut(4)
    assert (timeline.boundary, timeline.key_frames) == (4, (2, 4))
    assert timeline.groups == (Group.PLAN, Group.FIRST_HALF)
    assert timeline.chunks(2) == (2, 3, 4)
    assert Timeline.of(10, C).cut(2).groups == (Group.PLAN,)
    assert Timeline.of(10, C).planned_chain is C and timeline.planned_chain is None
    with pytest.raises(InvalidInput, match="cut"):
        Timeline.of(10, B).cut(7)


@pytest.mark.parametrize(
    ("stages", "keys", "boundary"),
    [
        ((Stage((2,), (1,)), Stage((3,), (1, 4)), Stage((4,), (1,))), (4,), 4),
        ((Stage((2, 3), (1,)),), (4,), 4),
        ((Stage((2, 3, 4), ()),), (4,), 4),
        ((Stage((2, 3, 4), (1,)),), (2, 3), 4),
        ((Stage((2, 3, 4), (1,)),), (), 4),
    ],
    ids=["sees what comes later", "lacks a latent", "sees no prefix", "boundary is no key frame", "no key frames"],
)
def test_a_layout_that_cannot_be_made_is_refused(stages, keys, boundary):
    with pytest.raises(InvalidInput, match="timeline"):
        Timeline(4, stages, keys, boundary)
