"""The layout of a world whose segments may end early: chunks without gaps, and Timeline's arithmetic where nothing was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teleworld.world.errors import InvalidInput
from teleworld.world.layout import Layout
from teleworld.world.timeline import ChainMode, Timeline

TIMELINES = [Timeline.of(latents, chain) for latents in (6, 10) for chain in (ChainMode.T_B, ChainMode.T_C)]


@pytest.mark.parametrize("timeline", TIMELINES)
def test_without_cuts_it_is_the_timeline(timeline: Timeline) -> None:
    layout = Layout(timeline)
    for known in (False, True):
        for segment in range(5):
            if known:
                layout.begin(segment, timeline.chunk(segment, 2))
            assert layout.last_shown(segment) == timeline.last_shown
            assert layout.cut(segment) == 0
            assert layout.of(segment) is timeline
            for index in timeline.chunks(segment):
                assert layout.chunk(segment, index) == timeline.chunk(segment, index)


@given(st.sampled_from(TIMELINES), st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(0, 12))
def test_chunks_have_no_gaps_wherever_segments_end_and_wherever_a_replay_begins(
    timeline: Timeline, draws: list[int], known: int
) -> None:
    ends = [2 + draw % (timeline.last_shown - 1) for draw in draws]
    layout, first = Layout(timeline), 1
    for segment, end in enumerate(ends):
        layout.begin(segment, first)
        first = layout.chunk(segment, end) + 1
    layout.begin(len(ends), first)
    shown = [layout.chunk(segment, index) for segment, end in enumerate(ends) for index in range(2, end + 1)]
    assert shown == list(range(1, first))
    assert [layout.last_shown(segment) for segment in range(len(ends))] == ends
    assert [layout.part(layout.cut(segment)).boundary for segment in range(len(ends))] == ends
    late = Layout(timeline)
    for segment in range(min(known, len(ends)), len(ends) + 1):
        late.begin(segment, layout.chunk(segment, 2))
    for segment in range(min(known, len(ends)), len(ends) + 2):
        assert late.chunk(segment, 2) == layout.chunk(segment, 2)
        assert late.last_shown(segment) == layout.last_shown(segment)
        layout.forget(segment)
        assert layout.chunk(segment + 1, 2) == late.chunk(segment + 1, 2)


def test_a_segment_cannot_end_before_its_first_latent_or_behind_its_last() -> None:
    layout = Layout(TIMELINES[0])
    with pytest.raises(InvalidInput, match="first_chunk"):
        layout.begin(0, 2)
    for chunk in (1, 5):
        with pytest.raises(InvalidInput, match="first_chunk"):
            layout.begin(1, chunk)
    layout.begin(1, 2)
    assert layout.cut(0) == 2
