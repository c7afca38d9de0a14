"""Keys that cut the segment under way: when they may, what that gains, and that nothing is lost by it."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleworld.scheduling.graph import compiled
from teleworld.scheduling.measures import Window
from teleworld.scheduling.ordering import Policy
from teleworld.scheduling.pacing import Lead
from teleworld.scheduling.policy import Scheduler
from teleworld.scheduling.tasks import Kind, Task
from teleworld.world.timeline import ChainMode, Timeline
from tests.scheduling.live_world import NANO_S, WORLD, LiveWorld

SLOW_PLAN_S = NANO_S | {Kind.GUIDE: 0.02, Kind.PLAN: 0.25, Kind.POPULATE: 0.25, Kind.DECODE: 0.018, Kind.BRIDGE: 0.022}


def pressed(seed: int, until: float, apart: float = 0.4, mean: float = 1.0) -> list[float]:
    """Moments at which keys are pressed: random, at least `apart` seconds from each other."""
    chance, at, moments = random.Random(seed), 3.0, list[float]()
    while at < until:
        moments.append(at)
        at += apart + chance.expovariate(1 / mean)
    return moments


@pytest.mark.parametrize(
    "timeline, fps, seconds, share",
    [
        (Timeline.of(6, ChainMode.T_B), 17.5, NANO_S, 0.75),
        (Timeline.of(6, ChainMode.T_C), 17.5, NANO_S, 0.75),
        (Timeline.of(10, ChainMode.T_B), 16.0, SLOW_PLAN_S, 0.55),
    ],
)
def test_keys_are_seen_sooner_and_playback_does_not_stall(timeline, fps, seconds, share):
    worlds = [
        LiveWorld(timeline, fps, seconds, pressed(4, 24.0), jitter=0.1, reanchor=reanchor, chunks=110).run()
        for reanchor in (False, True)
    ]
    without, with_cuts = (sorted(world.latencies()) for world in worlds)
    assert len(without) == len(with_cuts) > 15
    assert statistics.median(with_cuts) < share * statistics.median(without)
    assert with_cuts[-1] < share * without[-1]
    assert worlds[1].cuts
    assert worlds[1].stalls <= worlds[0].stalls
    chain = sum(seconds[kind] for kind in (Kind.GUIDE, Kind.PLAN, Kind.DECODE))
    assert with_cuts[0] >= chain, "nothing is seen before it can be made"


def test_a_key_is_seen_within_a_chunk_of_the_least_that_its_chain_takes():
    world = LiveWorld(keys=pressed(9, 40.0, apart=1.5), chunks=180).run()
    chain = sum(NANO_S[kind] for kind in (Kind.GUIDE, Kind.PLAN, Kind.DECODE))
    # The scheduler's guard comes on top, and what it learned of late chunks.
    assert max(world.latencies()) < chain + 4 / 17.5 + 0.06
    assert world.stalls == 0


def test_without_keys_no_segment_is_cut_and_chunks_are_those_of_the_timeline():
    world = LiveWorld(chunks=60).run()
    assert not world.cuts
    timeline = world.timeline
    assert [(segment, latent) for segment, latent, *_ in world.shown] == [timeline.locate(n) for n in range(60)]
    assert world.stalls == 0


def test_a_chain_that_cannot_be_ready_in_time_is_not_begun_for_a_key():
    """Planning alone takes longer than what is left to show: the key waits for the segment's end, and nothing stalls for it."""
    slow = NANO_S | {Kind.PLAN: 0.45}
    keys = pressed(2, 30.0)
    calm = LiveWorld(seconds=slow, chunks=120).run()
    world = LiveWorld(seconds=slow, keys=keys, chunks=120).run()
    assert world.stalls <= calm.stalls
    assert len(world.latencies()) > 10


def spare_bridges(world: LiveWorld) -> set[Task]:
    """The bridges of ends at which no segment was cut, once service times are known."""
    bridges = {task for task in world.done if task.kind is Kind.BRIDGE and task.index and task.segment > 1}
    return {task for task in bridges if world.cuts.get(task.segment) != task.index}


def test_bridges_are_made_ahead_only_where_planners_have_room():
    roomy = LiveWorld(chunks=60).run()
    assert len(spare_bridges(roomy)) > 20
    full = LiveWorld(seconds=NANO_S | {Kind.BRIDGE: 0.25}, chunks=60).run()
    assert not spare_bridges(full)
    keys = pressed(4, 24.0)
    pressing = LiveWorld(keys=keys, chunks=110)
    pressing.scheduler = Scheduler(Policy(spares=0.0))
    pressing.run()
    assert pressing.cuts, "a bridge is made once a key waits"
    assert len(spare_bridges(pressing)) < len(keys)
    assert pressing.stalls == 0


def test_no_segment_is_cut_where_a_pool_is_full():
    full = NANO_S | {Kind.BRIDGE: 0.45}
    worlds = [
        LiveWorld(seconds=full, keys=pressed(4, 24.0), chunks=110, reanchor=reanchor).run()
        for reanchor in (False, True)
    ]
    assert not worlds[1].cuts
    assert not spare_bridges(worlds[1])
    without, with_setting = (statistics.median(world.latencies()) for world in worlds)
    assert with_setting == pytest.approx(without, rel=0.1)
    assert worlds[1].stalls <= worlds[0].stalls


def test_a_segment_that_needed_more_is_forgotten_little_by_little():
    policy = Policy()
    lead = Lead(policy, Window(0.0))
    assert lead.seconds(-0.3) == pytest.approx(0.3 + 2 * policy.guard), "by service times, while nothing is known"
    for _ in range(20):
        lead.saw(need=0.3, most=1.0)
    usual = lead.seconds(-0.9)
    assert usual == pytest.approx(0.3 + policy.guard), "by what was needed, whatever service times are now"
    lead.saw(need=usual + 0.3, most=1.0)
    after = [lead.seconds(-0.9)]
    assert after[0] == pytest.approx(usual + 0.3 + policy.guard)
    for _ in range(120):
        lead.saw(need=usual - policy.guard, most=1.0)
        after.append(lead.seconds(-0.9))
    assert all(later <= sooner for sooner, later in itertools.pairwise(after))
    assert after[-1] == pytest.approx(usual, abs=0.02)


def test_a_control_that_is_bound_is_never_undone_by_a_cut():
    """Two keys at once take a chunk each; a third one may not end the segment before the second is shown."""
    keys = [5.0, 5.01, 5.3, 7.0, 7.01, 7.02, 7.3]
    world = LiveWorld(keys=keys, chunks=60).run()
    assert sorted(world.applied) == list(range(len(keys)))
    applied = [world.applied[key] for key in range(len(keys))]
    assert applied == sorted(set(applied)), "each key has a chunk of its own, in order"


def test_the_graph_of_a_cut_segment_keeps_the_bridge_that_was_made_ahead():
    timeline = Timeline.of(10, ChainMode.T_C)
    whole = compiled(timeline, spares=True)
    spare = [node.index for node in whole.nodes if node.spare]
    assert spare == list(range(2, timeline.boundary))
    for last in spare:
        cut = compiled(timeline, cut=last, spares=True)
        assert (Kind.BRIDGE, last) in whole.number
        assert (Kind.BRIDGE, last) in cut.number
        assert not any(node.spare for node in cut.nodes)
        assert cut.nodes[cut.ends[Kind.DECODE]].index == last
    plain = compiled(timeline)
    assert not any(node.spare or (node.kind is Kind.DECODE and node.index == 1) for node in plain.nodes)


@given(
    seed=st.integers(0, 10**6),
    jitter=st.floats(0, 1.5),
    scale=st.floats(0.2, 2.5),
    apart=st.sampled_from([0.0, 0.05, 0.3]),
    layout=st.sampled_from([(6, ChainMode.T_B), (6, ChainMode.T_C), (10, ChainMode.T_B), (10, ChainMode.T_C)]),
)
@settings(max_examples=30, deadline=None)
def test_whatever_tasks_take_and_whenever_keys_come_no_chunk_is_lost_and_every_key_is_seen(
    seed, jitter, scale, apart, layout
):
    """`LiveWorld` asserts on its way: chunks in order and without gaps, needs met, key frames fused in order and once."""
    seconds = {kind: scale * time for kind, time in NANO_S.items()}
    keys = pressed(seed, 9.0, apart=apart, mean=0.5)
    world = LiveWorld(Timeline.of(*layout), 17.5, seconds, keys, jitter=jitter, seed=seed, chunks=50).run()
    for segment, last in world.cuts.items():
        shown = [latent for number, latent, *_ in world.shown if number == segment]
        assert shown[-1] == last
        assert world.bound[segment + 1][1], "a segment was cut though no key waited"
    applied = [world.applied[key] for key in sorted(world.applied)]
    assert all(before <= after for before, after in itertools.pairwise(applied))
    if world.shown[-1][3] > 13.0:
        assert sorted(world.applied) == list(range(len(keys)))


@pytest.mark.parametrize("buffered", [0.0, 0.1])
def test_segments_open_as_late_as_they_need_however_late_the_player_began(buffered: float):
    world = LiveWorld(chunks=60, reanchor=False, buffered=buffered).run()
    slack: dict[int, float] = {}
    for segment, _, made, shown in world.shown:
        slack[segment] = min(slack.get(segment, 9.0), shown - made)
    learned = [seconds for segment, seconds in slack.items() if segment >= 10][:-1]
    assert world.stalls == 0
    assert learned == pytest.approx([Policy().guard] * len(learned), abs=0.005)


@pytest.mark.parametrize("slower", [1.8, 2.0])
def test_a_world_that_waits_for_its_own_chain_does_not_open_ever_earlier(slower: float):
    """Where the chain is as long as a segment, its queue would teach segments to open early, and the keys to bind early."""
    seconds = {kind: slower * usual for kind, usual in NANO_S.items()}
    world = LiveWorld(chunks=150, reanchor=False, jitter=0.2, seconds=seconds).run()
    needed = 1.2 * sum(seconds[kind] for kind in (Kind.GUIDE, Kind.PLAN, Kind.DECODE))
    lead = world.scheduler._progress.worlds[WORLD].learned.seconds(0.0)
    assert lead < needed - 4 / world.fps + 2 * Policy().guard
