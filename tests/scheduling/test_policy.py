"""The policy, driven by a discrete clock: whatever the timing and the failures, the order holds."""

import heapq
import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleworld.scheduling.policy import Limits, Ordering, Policy, Scheduler, Share
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.world.timeline import ChainMode, Timeline
from tests.scheduling.driver import EVEN, Mesh

PLANNED = (ChainMode.T_B, ChainMode.T_C)
HASTY = replace(Policy(), hedge=0.5, hedge_floor=0.0, hedge_samples=1, hedge_share=1.0)
"""Starts a second copy of nearly everything."""


@st.composite
def timelines(draw):
    """Any order of up to eight latents, cut anywhere: the paper's, the autoregressive one, and stages at random."""
    latents = draw(st.integers(4, 8))
    match draw(st.sampled_from(["t_b", "t_c", "autoregressive", "any"])):
        case "any":
            stages = draw(st.lists(st.integers(1, 4), min_size=latents - 1, max_size=latents - 1))
            keys = draw(st.sets(st.integers(2, latents), min_size=1))
            numbers = sorted(set(stages))
            timeline = Timeline.ordered([0, *(1 + numbers.index(stage) for stage in stages)], tuple(sorted(keys)))
        case chain:
            timeline = Timeline.of(latents, ChainMode(chain))
    return timeline.cut(draw(st.integers(2, timeline.boundary))) if draw(st.booleans()) else timeline


@settings(max_examples=50, deadline=None)
@given(
    timeline=timelines(),
    ordering=st.sampled_from(Ordering),
    realtime=st.booleans(),
    chunks=st.integers(1, 24),
    populators=st.integers(1, 4),
    others=st.integers(1, 2),
    slots=st.integers(1, 2),
    worlds=st.integers(1, 4),
    policy=st.sampled_from([Policy(), HASTY]),
    batches=st.sampled_from([{}, {Kind.POPULATE: 3}, {Kind.PLAN: 2, Kind.POPULATE: 2}]),
    fail_rate=st.floats(0, 0.4),
    seed=st.integers(0, 10**6),
    durations=st.fixed_dictionaries({kind: st.floats(0.001, 1.0) for kind in Kind}),
    die=st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["populator-0", "planner-0", "decoder-0"])), max_size=3),
    pause=st.none() | st.floats(0, 3),
)
def test_every_chunk_comes_exactly_once_whatever_happens(
    timeline, ordering, realtime, chunks, populators, others, slots, worlds, policy, batches, fail_rate, seed, durations,
    die, pause,
):  # fmt: skip
    mesh = Mesh(
        populators, durations, others=others, jitter=0.8, seed=seed, policy=policy, batches=batches, slots=slots
    )
    mesh.fails = lambda assignment: mesh.chance.random() < fail_rate
    for number in range(worlds):
        mesh.add(f"world-{number}", timeline, Limits(6, realtime, ordering), until=chunks, share=Share(str(number % 2)))
    for when, worker in die:
        mesh.at(when, lambda worker=worker: (mesh.leave(worker), mesh.join(worker)))
    if pause is not None:
        mesh.at(pause, lambda: mesh.scheduler.pause("world-0", True))
        mesh.at(pause + 2.0, lambda: mesh.scheduler.pause("world-0", False))
    mesh.run()
    for seen in mesh.seen.values():
        assert sorted(seen.ready) == list(range(chunks)), "lost, or more than asked for"
        assert seen.played == chunks


@settings(max_examples=40, deadline=None)
@given(
    moments=st.lists(st.tuples(st.floats(0.1, 6), st.integers(2, 6)), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    chain=st.sampled_from(PLANNED),
)
def test_a_segment_that_is_cut_ends_there_and_the_next_one_follows(moments, seed, chain):
    """Chunks stay gapless, and every task runs on what it needs, when segments are cut while they are under way."""
    timeline = Timeline.of(6, chain)
    scheduler, cuts, base, until = Scheduler(), {}, 0, 40
    for pool in Pool:
        scheduler.join(pool.value, pool, 2, 0.0)
    scheduler.add("w", timeline, 16.0, Limits(100), 0.0)
    scheduler.until("w", until)
    chance, queue, serial, now = random.Random(seed), [], 0, 0.0
    done, running, wanted = set(), {}, sorted(moments)
    while True:
        for assignment in scheduler.decide(now):
            serial += 1
            running[assignment.task] = serial
            heapq.heappush(queue, (now + chance.uniform(0.01, 0.3), serial, assignment))
        if not queue:
            break
        now, number, assignment = heapq.heappop(queue)
        task = assignment.task
        if running.get(task) != number:
            continue
        del running[task]
        scheduler.finished(task, assignment.worker, 0.1, now)
        assert (task.kind, task.segment, task.index) not in done, f"{task} was done twice"
        done.add((task.kind, task.segment, task.index))
        if wanted and now >= wanted[0][0]:
            _, last = wanted.pop(0)
            segment = max(task.segment, max(cuts, default=-1) + 1)
            if (Kind.GUIDE, segment) in {(kind, of) for kind, of, _ in done} and last <= timeline.boundary - 1:
                for gone in scheduler.cut("w", segment, last, now):
                    running.pop(gone, None)
                cuts[segment] = last
                done = {
                    key
                    for key in done
                    if key[1] < segment
                    or (key[1] == segment and key[0] not in (Kind.BRIDGE, Kind.RECONSTRUCT) and not _beyond(key, last))
                }
                running = {task: of for task, of in running.items() if task.segment <= segment}
    segment = 0
    while base < until - 1:
        end = cuts.get(segment, timeline.boundary)
        shown = [index for index in range(2, end + 1) if base + index - 1 < until]
        assert {(Kind.DECODE, segment, index) for index in shown} <= done, "a chunk is missing"
        assert not {key for key in done if key[0] is Kind.DECODE and key[1] == segment and key[2] > end}
        base, segment = base + end - 1, segment + 1


def _beyond(key, last):
    return key[0] is Kind.DECODE and key[2] > last


@pytest.mark.parametrize("chain", PLANNED)
def test_a_segment_is_populated_while_the_next_one_is_planned(chain):
    mesh = Mesh(2, EVEN | {Kind.POPULATE: 0.4})
    mesh.add("w", Timeline.of(6, chain), Limits(6), until=20)
    mesh.run()
    began = {assignment.task: when for when, assignment in mesh.starts}
    plan, populate = began[Task("w", Kind.PLAN, 1)], began[Task("w", Kind.POPULATE, 0, 2)]
    assert populate < plan < populate + 0.4, "no overlap of planning and populating"


def test_frame_by_frame_plans_the_next_segment_after_the_last_frame():
    mesh = Mesh(4)
    mesh.add("w", Timeline.of(6, ChainMode.AUTOREGRESSIVE), Limits(20, ordering=Ordering.AUTOREGRESSIVE), until=20)
    mesh.run()
    began = {assignment.task: when for when, assignment in mesh.starts}
    order = [
        Task("w", Kind.PLAN),
        *(Task("w", Kind.POPULATE, 0, group) for group in range(2, 6)),
        Task("w", Kind.BRIDGE),
    ]
    times = [began[task] for task in order]
    assert all(later >= earlier + 0.05 - 1e-9 for earlier, later in itertools.pairwise(times))


def test_planning_everything_first_delays_the_first_population():
    first = {}
    for ordering in (Ordering.PLAN_FIRST, Ordering.STAGED):
        mesh = Mesh(2)
        mesh.add("w", Timeline.of(6, ChainMode.T_C), Limits(100, ordering=ordering), until=41)
        mesh.run()
        began = {assignment.task: when for when, assignment in mesh.starts}
        first[ordering] = began[Task("w", Kind.POPULATE, 0, 2)]
        last_plan = began[Task("w", Kind.PLAN, 7)]
        assert (first[ordering] >= last_plan) == (ordering is Ordering.PLAN_FIRST)


def test_more_populators_shorten_the_walk():
    ends = []
    for populators in (1, 3):
        mesh = Mesh(populators, EVEN | {Kind.POPULATE: 0.5})
        mesh.add("w", Timeline.of(6, ChainMode.T_C), Limits(30), until=20)
        mesh.run()
        ends.append(max(mesh.seen["w"].ready.values()))
    assert ends[1] < 0.6 * ends[0]


def test_a_failed_task_goes_to_another_worker():
    scheduler = Scheduler()
    for name in ("populator-0", "populator-1"):
        scheduler.join(name, Pool.POPULATOR, 1, 0.0)
    timeline = Timeline.of(6, ChainMode.T_B)
    scheduler.add("w", timeline, 17.5, Limits(6), 0.0, done=[Task("w", Kind.PLAN, 0), Task("w", Kind.GUIDE, 0)])
    (first,) = scheduler.decide(0.0)
    assert scheduler.failed(first.task, first.worker, 0.1) == 1
    (second,) = scheduler.decide(0.1)
    assert (second.task, second.attempt) == (first.task, 2) and second.worker != first.worker


def test_a_paused_world_opens_nothing():
    scheduler = Scheduler()
    for pool in Pool:
        scheduler.join(pool.value, pool, 4, 0.0)
    scheduler.add("w", Timeline.of(6, ChainMode.T_B), 17.5, Limits(6), 0.0)
    scheduler.pause("w", True)
    assert scheduler.decide(0.0) == []
    scheduler.pause("w", False)
    assert {a.task.kind for a in scheduler.decide(0.0)} == {Kind.ENCODE, Kind.BOOTSTRAP}


def test_the_same_events_give_the_same_decisions():
    walks = []
    for _ in range(2):
        mesh = Mesh(3, jitter=0.5, seed=5, batches={Kind.POPULATE: 2}, policy=HASTY)
        for number in range(6):
            mesh.add(
                f"w{number}", Timeline.of(10, ChainMode.T_B), Limits(8, True), until=30, share=Share(str(number % 3))
            )
        mesh.run()
        walks.append(mesh.starts)
    assert walks[0] == walks[1]
