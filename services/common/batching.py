"""How many tasks a worker may be given in one call: as many as leave every bit as it is, fit into a message, and pay.

A world must not depend on who shared its calls, so networks are tried before they serve: the same requests alone and
together, for every shape that may be batched, one size after the other. Which kernel a library takes, and so the order of
its sums, may change with the size of a batch; where it does for any shape, that size and larger ones are never announced. A
size that takes nearly as long as its tasks one by one is not announced either: tasks would wait for each other for nothing.
Emulated cores have the same bits by construction, and what a batch saves stands in their cost table.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from services.common.rehearsal import WORLD, Stage
from teleworld.rpc.channels import MAX_MESSAGE_BYTES
from teleworld.rpc.convert.common import MAX_BATCH
from teleworld.scheduling.costs import CostTable
from teleworld.scheduling.tasks import BATCHED, Kind, Pool
from teleworld.world.spec import WorldSpec
from teleworld.world.timeline import ChainMode, Group, Timeline
from teleworld.world.work import Float, LatentsResult, PlanRequest, PopulateRequest, Prompt

if TYPE_CHECKING:
    from teleworld.generation.planner import Planner
    from teleworld.generation.populator import Populator

PAYS = 0.85
"""A batch pays if it takes less than this share of the time that its tasks take one by one."""
PATIENCE_S = 10.0
"""No larger size is tried when trying has taken so long: a worker should serve soon."""
FLOAT_BYTES = 4

Ask = Callable[[Sequence[Any]], Sequence[LatentsResult]]
_log = logging.getLogger(__name__)


def planner_batches(core: Planner, most: int) -> dict[str, int]:
    """What a planner may announce, at most `most` tasks in a call."""

    def request(stage: Stage, prompt: Prompt, timeline: Timeline, group: int) -> PlanRequest:
        prefix, guidance = stage.latents(1)[0], stage.guidance(timeline.members(group))
        return PlanRequest(stage.context, timeline, prefix, guidance, prompt)

    return _announced(Kind.PLAN, core, core.plan_many, request, most)


def populator_batches(core: Populator, most: int) -> dict[str, int]:
    """What a populator may announce, at most `most` tasks in a call."""

    def request(stage: Stage, prompt: Prompt, timeline: Timeline, group: int) -> PopulateRequest:
        clean, guidance = stage.latents(len(timeline.visible(group))), stage.guidance(timeline.members(group))
        return PopulateRequest(stage.context, timeline, group, clean, guidance, prompt)

    return _announced(Kind.POPULATE, core, core.populate_many, request, most)


def table_batches(table: CostTable, spec: WorldSpec, prompt_bytes: int, pool: Pool, most: int) -> dict[str, int]:
    """What an emulated worker of `pool` may announce: by its table. prompt_bytes: of a prompt's embedding."""
    sizes = {}
    for kind in BATCHED.get(pool, ()):
        more = table.tasks[kind].batch
        size = min(most, largest_message(spec, prompt_bytes, kind))
        if size > 1 and more is not None and 1 + (size - 1) * more < PAYS * size:
            sizes[kind.value] = size
    return sizes


def largest_message(spec: WorldSpec, prompt_bytes: int, kind: Kind) -> int:
    """How many requests of a kind a message can carry, of the largest that worlds ask, with a tenth to spare."""
    channels, rows, columns = spec.latent_shape
    latents = max(len(line.visible(group)) + len(line.members(group)) for line, group in shapes(spec, kind))
    # One channel more, for the coverage of the guidance.
    each = latents * (channels + 1) * rows * columns * FLOAT_BYTES + prompt_bytes
    return min(MAX_BATCH, int(0.9 * MAX_MESSAGE_BYTES / each))


def shapes(spec: WorldSpec, kind: Kind) -> Iterator[tuple[Timeline, int]]:
    """The groups of latents that tasks of a kind make, of the layouts that the scheduler batches (`Job.shape`): the paper's. Each
    once, where it is the same in several."""
    known = set()
    for timeline in map(spec.timeline, (ChainMode.T_B, ChainMode.T_C)):
        groups = (int(Group.PLAN),) if kind is Kind.PLAN else range(Group.FIRST_HALF, len(timeline.stages) + 1)
        for group in groups:
            seen = timeline.visible(group)
            shape = timeline.members(group), tuple((index, timeline.group_of(index)) for index in seen)
            if timeline.members(group) and shape not in known:
                known.add(shape)
                yield timeline, group


@dataclass
class Case:
    """Requests of one shape. alone: what they got, asked one by one, so far; seconds: how long each of those took."""

    name: str
    requests: Sequence[Any]
    alone: list[Float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def ask_alone(self, ask: Ask, count: int) -> float:
        """The seconds that the first `count` take one by one."""
        for request in self.requests[len(self.alone) : count]:
            begun = time.perf_counter()
            self.alone.append(ask([request])[0].latents)
            self.seconds.append(time.perf_counter() - begun)
        return sum(self.seconds[:count])

    def same(self, together: Sequence[LatentsResult]) -> bool:
        """Whether these are, bit for bit, the answers to the first ones alone."""
        return all(
            mine.tobytes() == theirs.latents.tobytes() for mine, theirs in zip(self.alone, together, strict=False)
        )


def largest_batch(kind: Kind, ask: Ask, cases: Iterable[Case], most: int) -> int:
    """The largest size, up to `most`, that pays, if it and all smaller ones leave every bit of every case as it is; else 1."""
    cases, best, share, found = tuple(cases), 1, 1.0, f"the same bits up to {most} tasks in a call"
    until = time.perf_counter() + PATIENCE_S
    for size in range(2, most + 1):
        if time.perf_counter() > until:
            found = f"the same bits up to {size - 1} tasks in a call; there was no time to try more"
            break
        one_by_one = together = 0.0
        other = None
        for case in cases:
            one_by_one += case.ask_alone(ask, size)
            begun = time.perf_counter()
            answers = ask(case.requests[:size])
            together += time.perf_counter() - begun
            if not case.same(answers):
                other = case.name
                break
        if other is not None:
            found = f"other bits for {size} tasks in a call than one by one, in latents {other}"
            break
        if together < PAYS * one_by_one:
            best, share = size, together / one_by_one
    extra = {"kind": kind.value, "size": best, "share_of_time": round(share, 3), "found": found}
    _log.info("batches were tried", extra=extra)
    return best


def _announced(
    kind: Kind, core: Planner | Populator, ask: Ask, request: Callable[[Stage, Prompt, Timeline, int], Any], most: int
) -> dict[str, int]:
    config = core.model.dit.config
    most = min(most, largest_message(core.model.spec, config.text_length * config.text_dim * FLOAT_BYTES, kind))
    # Ranks that share a sequence must do the same calls, and each would find by its own clock when to stop trying.
    if most < 2 or core.model.dit.sharding.ranks > 1:
        return {}
    cases = []
    for timeline, group in shapes(core.model.spec, kind):
        requests = []
        for seed in range(most):
            stage = Stage(core.model, seed)
            # Of different lengths, as prompts are.
            words = np.full((config.text_length - seed % config.text_length, config.text_dim), 0.1 * seed, np.float32)
            requests.append(request(stage, Prompt(WORLD, words), timeline, group))
        cases.append(Case(f"{timeline.members(group)} of {timeline.latents} latents", requests))
    size = largest_batch(kind, ask, cases, most)
    return {kind.value: size} if size > 1 else {}
