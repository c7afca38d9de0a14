"""The timeline: which latents a segment has, in which order they are generated, what each sees, and what is shown.

A segment holds N latents (paper 3.2). Latent 1 is the prefix: the start picture, or the re-encoded boundary of the
segment before. The others are generated group by group; the latents of a group are denoised jointly, and each group sees
clean latents of earlier ones. In the paper's layout micro planning predicts {t_a, t_b, t_c} jointly from the prefix
(Eq. 1), content populating fills the two halves between them (Eq. 3), and macro planning chains segments at t_c (maximum
throughput) or t_b (minimum memory peak, Eq. 2, 4). The same class holds the autoregressive order, in which every latent is
a group of its own, and orders that list a stage for each latent, such as those that MMPL released.

Indices here are 1-based like the paper's. The prefix covers one pixel frame, every other latent four. A group is its
number: 0 is the prefix, 1 what the planner makes, the others what populators make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from functools import cached_property

from teleworld.world.errors import InvalidInput

PIXEL_FRAMES_PER_LATENT = 4


class ChainMode(Enum):
    """How a world's segments are made: planned and chained at t_b (minimum memory peak) or t_c (maximum throughput), or
    latent after latent, chained at the last one: the autoregressive baseline."""

    T_B = "t_b"
    T_C = "t_c"
    AUTOREGRESSIVE = "autoregressive"


class Group(IntEnum):
    """Names for the numbers of the groups of the paper's layout."""

    PREFIX = 0
    PLAN = 1
    FIRST_HALF = 2
    SECOND_HALF = 3


@dataclass(frozen=True)
class Stage:
    """One group: its latents, ascending, and the clean latents that it sees, in the order in which the KV cache holds them."""

    members: tuple[int, ...]
    sees: tuple[int, ...]


@dataclass(frozen=True)
class Timeline:
    """The layout of a segment. A world pins its timeline at birth; `cut` is that of a segment which ends early.

    `latents` is the paper's N. `stages` are the groups 1, 2, ... in the order of their generation; a stage may be empty.
    `boundary` is the last latent that is shown and the one that the next segment starts from. `key_frames` are the shown
    latents that are fused into the memory, ascending, the boundary last.
    """

    latents: int
    stages: tuple[Stage, ...]
    key_frames: tuple[int, ...]
    boundary: int

    def __post_init__(self) -> None:
        made = [1]
        for number, stage in enumerate(self.stages, start=1):
            if any(index not in made for index in stage.sees) or len({*stage.sees}) != len(stage.sees):
                raise InvalidInput("timeline", f"group {number} sees a latent that is not made before it, or one twice")
            made += stage.members
        if sorted(made) != list(range(1, self.latents + 1)) or not self.stages or self.stages[0].sees != (1,):
            raise InvalidInput(
                "timeline", f"needs each of the latents 2 to {self.latents} once, the first group seeing 1"
            )
        shown = self.key_frames and sorted({*self.key_frames}) == [*self.key_frames] and self.key_frames[0] > 1
        if not shown or self.key_frames[-1] != self.boundary or not 2 <= self.boundary <= self.latents:
            raise InvalidInput("timeline", f"key frames {self.key_frames} must ascend to the boundary {self.boundary}")

    @classmethod
    def of(cls, latents: int, chain: ChainMode) -> Timeline:
        """The layout for N latents. The paper's is t_a = 2, t_b = N/2 + 1, t_c = N; the autoregressive one fuses the same
        key frames."""
        middle = latents // 2 + 1
        if chain is ChainMode.AUTOREGRESSIVE:
            keys = tuple(sorted({2, middle, latents}))
            return cls.ordered([0, *range(1, latents)], keys)
        return cls.planned(latents, 2, middle, latents, chain)

    @classmethod
    def planned(cls, latents: int, early: int, middle: int, end: int, chain: ChainMode) -> Timeline:
        """The paper's layout with the planned latents t_a, t_b and t_c (1-based): Eq. 1 and 3 say what each group sees."""
        if not 2 == early < middle < end == latents:
            raise InvalidInput("timeline", f"needs 2 = t_a < t_b < t_c = N, got N={latents}, {early}, {middle}, {end}")
        if chain is ChainMode.AUTOREGRESSIVE:
            raise InvalidInput("timeline", "an autoregressive timeline plans nothing")
        first, second = tuple(range(early + 1, middle)), tuple(range(middle + 1, end))
        stages = (
            Stage((early, middle, end), (1,)),
            Stage(first, (1, early, middle)),
            Stage(second, (1, early, middle, end, *first)),
        )
        keys = (early, middle, end) if chain is ChainMode.T_C else (early, middle)
        return cls(latents, stages, keys, keys[-1])

    @classmethod
    def ordered(cls, order: Sequence[int], key_frames: tuple[int, ...]) -> Timeline:
        """The layout that gives latent i the stage `order[i - 1]`: 0 for the prefix, then 1, 2, ... (REFERENCE, MMPL).

        A group sees what is made before it and lies before its last latent, or right behind that without a gap: so the end
        of the plan stays hidden from those who populate its first part.
        """
        if not order or order[0] != 0 or 0 in order[1:]:
            raise InvalidInput("timeline", "the prefix is latent 1 alone")
        stages, made = [], [1]
        for number in range(1, max(order) + 1):
            members = tuple(index for index, stage in enumerate(order, start=1) if stage == number)
            reach = members[-1] if members else 0
            while reach + 1 in made:
                reach += 1
            stages.append(Stage(members, tuple(index for index in made if index <= reach)))
            made += members
        return cls(len(order), tuple(stages), key_frames, key_frames[-1] if key_frames else 0)

    def cut(self, last: int) -> Timeline:
        """The segment when it ends at the shown latent `last`: the next one starts from there (re-anchoring)."""
        if not 2 <= last <= self.boundary:
            raise InvalidInput("timeline.cut", f"expected a shown latent from 2 to {self.boundary}, got {last}")
        return replace(self, key_frames=(*(key for key in self.key_frames if key < last), last), boundary=last)

    def members(self, group: int) -> tuple[int, ...]:
        """The latents of a group, ascending."""
        return (1,) if group == 0 else self.stages[group - 1].members if group <= len(self.stages) else ()

    def visible(self, group: int) -> tuple[int, ...]:
        """The clean latents that a group sees beside itself, in the order in which the KV cache holds them (Eq. 1 and 3)."""
        return () if group == 0 else self.stages[group - 1].sees

    def group_of(self, index: int) -> int:
        """The group that makes a latent."""
        return self._group_of[index]

    @cached_property
    def _group_of(self) -> dict[int, int]:
        return {1: 0} | {i: number for number, stage in enumerate(self.stages, start=1) for i in stage.members}

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """The groups that are generated, in order: those with a latent that is shown, and what those see."""
        wanted = {self.group_of(index) for index in range(2, self.boundary + 1)}
        for group in range(len(self.stages), 0, -1):
            if group in wanted:
                wanted |= {self.group_of(index) for index in self.visible(group)}
        return tuple(sorted(wanted - {0}))

    @cached_property
    def planned_chain(self) -> ChainMode | None:
        """T_B or T_C if this is the paper's layout, not cut; else None."""
        plan = self.members(Group.PLAN)
        if len(plan) != 3 or plan[0] != 2 or plan[2] != self.latents:
            return None
        for chain in (ChainMode.T_B, ChainMode.T_C):
            if self == Timeline.planned(self.latents, *plan, chain):
                return chain
        return None

    @cached_property
    def _hash(self) -> int:
        return hash((self.latents, self.stages, self.key_frames, self.boundary))

    def __hash__(self) -> int:
        return self._hash

    @property
    def last_shown(self) -> int:
        """The last latent of a segment that is shown; equal to `boundary`."""
        return self.boundary

    @cached_property
    def used(self) -> tuple[int, ...]:
        """Every latent of a segment that is generated, ascending, without the prefix."""
        return tuple(sorted(index for group in self.groups for index in self.members(group)))

    def chunks(self, segment: int) -> tuple[int, ...]:
        """The latents of a segment that are shown, one chunk each; the prefix is shown in segment 0 alone."""
        return tuple(range(1 if segment == 0 else 2, self.last_shown + 1))

    @property
    def chunks_per_segment(self) -> int:
        """Chunks of each segment after the first one."""
        return self.last_shown - 1

    def first_chunk(self, segment: int) -> int:
        """The global number of the first chunk of a segment (0-based; chunk 0 is the single frame of the start picture)."""
        return 0 if segment == 0 else 1 + segment * self.chunks_per_segment

    def chunk(self, segment: int, latent: int) -> int:
        """The global number of the chunk that shows `latent` of `segment`."""
        return latent - 1 + segment * self.chunks_per_segment

    def locate(self, chunk: int) -> tuple[int, int]:
        """(segment, latent) of a global chunk number."""
        if chunk == 0:
            return 0, 1
        segment, rest = divmod(chunk - 1, self.chunks_per_segment)
        return segment, rest + 2

    @staticmethod
    def chunk_frames(chunk: int) -> int:
        """Pixel frames of a chunk: one for the start picture, else four."""
        return 1 if chunk == 0 else PIXEL_FRAMES_PER_LATENT

    @staticmethod
    def first_frame(chunk: int) -> int:
        """The global number of the first pixel frame of a chunk."""
        return 0 if chunk == 0 else 1 + (chunk - 1) * PIXEL_FRAMES_PER_LATENT

    @property
    def pixel_frames(self) -> int:
        """Pixel frames that a whole segment of N latents covers, the prefix's one included."""
        return 1 + (self.latents - 1) * PIXEL_FRAMES_PER_LATENT

    @property
    def frames_per_segment(self) -> int:
        """Pixel frames that a segment after the first one shows."""
        return self.chunks_per_segment * PIXEL_FRAMES_PER_LATENT

    @staticmethod
    def frames_of(latent: int) -> range:
        """The 0-based pixel frames, inside a segment, that a latent covers."""
        if latent == 1:
            return range(0, 1)
        return range(1 + (latent - 2) * PIXEL_FRAMES_PER_LATENT, 1 + (latent - 1) * PIXEL_FRAMES_PER_LATENT)
