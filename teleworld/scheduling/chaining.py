"""Where a world's segments should chain: at t_b, which answers keys sooner and needs less memory, or at t_c, which makes more of
each plan (paper 3.6.1). Which of them is faster depends on the workers at hand, so it is reckoned, not assumed.

In the steady state a world makes a segment's frames in the time of its chain, or in the time that the busiest pool needs
for its work, whichever is longer. The short segment is taken unless it costs throughput that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from teleworld.scheduling.tasks import CHAIN, Pool, Task, tasks_of
from teleworld.world.timeline import ChainMode, Timeline

WORTH = 0.98
"""The share of the rate at t_c that t_b must reach."""
LATER = 1
"""A segment number that stands for all but the first."""


def sustained(
    timeline: Timeline, seconds: Callable[[Task, Timeline], float], workers: Mapping[Pool, int], worlds: int = 1
) -> float:
    """Frames a second that each of `worlds` equal worlds gets in the long run; `seconds` is the mean time of a task."""
    work, chain = dict.fromkeys(Pool, 0.0), 0.0
    for task in tasks_of("", LATER, timeline):
        work[task.pool] += seconds(task, timeline)
        chain += seconds(task, timeline) if task.kind in CHAIN else 0.0
    slowest = max(
        worlds * busy / workers[pool] if workers.get(pool) else math.inf for pool, busy in work.items() if busy
    )
    return timeline.frames_per_segment / max(chain, slowest)


def choose_chain(
    timelines: Mapping[ChainMode, Timeline],
    seconds: Callable[[Task, Timeline], float],
    workers: Mapping[Pool, int],
    *,
    fps: float = math.inf,
    worlds: int = 1,
) -> ChainMode:
    """t_b if it reaches nearly the rate of t_c, or `fps`, which is all that a player asks for; else t_c."""
    short, long = (
        min(fps, sustained(timelines[mode], seconds, workers, worlds)) for mode in (ChainMode.T_B, ChainMode.T_C)
    )
    return ChainMode.T_B if short >= WORTH * long else ChainMode.T_C
