"""The policy remembers what is under way, however long a world walks."""

from __future__ import annotations

import gc

from teleworld.scheduling.policy import Limits, Scheduler
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.timeline import ChainMode, Timeline

FPS, SECONDS_A_TASK = 16.0, 0.001


def walk(scheduler: Scheduler, seconds: float) -> float:
    """Worlds in real time from now on, each task done before the next is ready: a segment is complete long before the next
    one opens. Returns the moment of the end."""
    now, made = 0.0, 0
    while now < seconds:
        for assignment in scheduler.decide(now):
            now += SECONDS_A_TASK
            made += assignment.task.kind is Kind.DECODE
            scheduler.finished(assignment.task, assignment.worker, SECONDS_A_TASK, now)
        scheduler.played("w", int(now * FPS / 4), now)
        now += 0.01
    assert made > 0.9 * seconds * FPS / 4
    return now


def held() -> int:
    """Containers that are alive."""
    gc.collect()
    return len(gc.get_objects())


def test_a_long_walk_leaves_no_more_behind_than_a_short_one() -> None:
    left = []
    for seconds in (20.0, 320.0):
        scheduler = Scheduler()
        for pool in Pool:
            scheduler.join(pool.value, pool, 4, 0.0)
        scheduler.add("w", Timeline.of(6, ChainMode.T_B), FPS, Limits(24, realtime=True), 0.0)
        before = held()
        walk(scheduler, seconds)
        left.append(held() - before)
    assert left[1] < left[0] + 200, left
