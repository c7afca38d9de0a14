"""The chain that suits the workers at hand, checked against hand-made rates of the 18B table."""

from __future__ import annotations

import pytest

from teleworld.scheduling.chaining import choose_chain, sustained
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.timeline import ChainMode, Timeline

SECONDS = {
    Kind.GUIDE: 0.2,
    Kind.PLAN: 3.3,
    Kind.BRIDGE: 0.3,
    Kind.RECONSTRUCT: 0.2,
    Kind.POPULATE: 3.5,
    Kind.DECODE: 0.2,
}
TIMELINES = {mode: Timeline.of(10, mode) for mode in (ChainMode.T_B, ChainMode.T_C)}


def seconds(task, timeline):
    return SECONDS[task.kind]


def workers(populators):
    return dict.fromkeys(Pool, 1) | {Pool.POPULATOR: populators}


def test_rates():
    # The chain takes 4 s. t_b shows 20 frames and populates once; t_c shows 36 and populates twice.
    assert sustained(TIMELINES[ChainMode.T_B], seconds, workers(1)) == pytest.approx(5.0)
    assert sustained(TIMELINES[ChainMode.T_C], seconds, workers(1)) == pytest.approx(36 / 7.0)
    assert sustained(TIMELINES[ChainMode.T_C], seconds, workers(2)) == pytest.approx(9.0)
    assert sustained(TIMELINES[ChainMode.T_C], seconds, workers(2), worlds=2) == pytest.approx(36 / 7.2), (
        "the planner: 2 x 3.6 s"
    )


@pytest.mark.parametrize(
    ("populators", "fps", "chain"),
    [(1, 5.0, ChainMode.T_B), (1, 5.1, ChainMode.T_C), (2, 4.0, ChainMode.T_B), (2, 8.0, ChainMode.T_C)],
)
def test_the_short_segment_unless_it_costs_what_is_asked_for(populators, fps, chain):
    assert choose_chain(TIMELINES, seconds, workers(populators), fps=fps + 0.06) is chain


def test_no_worker_makes_no_frames():
    assert sustained(TIMELINES[ChainMode.T_B], seconds, workers(0)) == 0.0
