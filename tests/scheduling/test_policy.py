"""The policy, driven by a discrete clock: whatever the timing and the failures, the order holds."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleworld.scheduling.policy import Limits, Scheduler
from teleworld.scheduling.tasks import Kind, Pool, Task, needs
from teleworld.world.timeline import ChainMode, Timeline


def run(chain, chunks, populators, durations, fail_rate=0.0, seed=0, worlds=1, ahead=6, die=()):
    """Drive worlds to their end; returns the events (time, 'start' | 'end', task) and the chunks shown per world."""
    scheduler, chance = Scheduler(), random.Random(seed)
    timeline = Timeline.of(6, chain)
    for pool in Pool:
        for number in range(populators if pool is Pool.POPULATOR else 1):
            scheduler.join(f"{pool.value}-{number}", pool, 1, 0.0)
    names = [f"world-{number}" for number in range(worlds)]
    for name in names:
        scheduler.add(name, timeline, 17.5, Limits(ahead), 0.0)
        scheduler.until(name, chunks)
    done: dict[str, set[Task]] = {name: set() for name in names}
    shown: dict[str, list[int]] = {name: [] for name in names}
    events, queue, now, serial = [], [], 0.0, 0
    deaths = sorted(die)
    while True:
        for assignment in scheduler.decide(now):
            task = assignment.task
            assert done[task.world].issuperset(needs(task, timeline)), f"{task} started before its needs"
            assert timeline.first_chunk(task.segment) - len(shown[task.world]) <= ahead, f"{task} ran too far ahead"
            events.append((now, "start", task))
            serial += 1
            heapq.heappush(queue, (now + durations[task.kind] * chance.uniform(0.5, 1.5), serial, assignment))
        if not queue:
            return events, shown
        now, _, assignment = heapq.heappop(queue)
        task = assignment.task
        if deaths and now >= deaths[0][0]:
            _, dead = deaths.pop(0)
            scheduler.leave(dead)
            scheduler.join(dead, Pool(dead.rsplit("-", 1)[0]), 1, now)
        if chance.random() < fail_rate:
            scheduler.failed(task, assignment.worker, now)
            continue
        scheduler.finished(task, assignment.worker, 0.1, now)
        if task in done[task.world]:
            continue
        done[task.world].add(task)
        events.append((now, "end", task))
        if task.kind is Kind.DECODE:
            shown[task.world].append(timeline.chunk(task.segment, task.index))
            shown[task.world].sort()
            in_order = next((i for i, n in enumerate(shown[task.world]) if i != n), len(shown[task.world]))
            scheduler.played(task.world, in_order, now)


EVEN = dict.fromkeys(Kind, 0.05)


@settings(max_examples=60, deadline=None)
@given(
    chain=st.sampled_from(ChainMode),
    chunks=st.integers(1, 30),
    populators=st.integers(1, 4),
    worlds=st.integers(1, 4),
    fail_rate=st.floats(0, 0.4),
    seed=st.integers(0, 10**6),
    durations=st.fixed_dictionaries({kind: st.floats(0.001, 1.0) for kind in Kind}),
    die=st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["populator-0", "planner-0", "decoder-0"])), max_size=3),
)
def test_every_chunk_comes_exactly_once_whatever_happens(
    chain, chunks, populators, worlds, fail_rate, seed, durations, die
):
    _, shown = run(chain, chunks, populators, durations, fail_rate, seed, worlds, die=die)
    for numbers in shown.values():
        assert numbers == list(range(chunks)), "lost, repeated, or more than asked for"


@pytest.mark.parametrize("chain", ChainMode)
def test_a_segment_is_populated_while_the_next_one_is_planned(chain):
    slow = EVEN | {Kind.FIRST_HALF: 0.4, Kind.SECOND_HALF: 0.4}
    events, _ = run(chain, 20, 2, slow)
    at = {(what, task): when for when, what, task in events}
    plan = Task("world-0", Kind.PLAN, 1)
    populate = Task("world-0", Kind.FIRST_HALF, 0)
    assert at["start", populate] < at["start", plan] < at["end", populate], "no overlap of planning and populating"


def test_more_populators_shorten_the_walk():
    slow = EVEN | {Kind.FIRST_HALF: 0.5, Kind.SECOND_HALF: 0.5}
    ends = [run(ChainMode.T_C, 20, n, slow, ahead=30)[0][-1][0] for n in (1, 3)]
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
