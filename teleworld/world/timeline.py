"""The timeline: which latents a segment has, in which order they are generated, what each sees, and what is shown.

A segment holds N latents (paper 3.2). Latent 1 is the prefix: the start picture, or the re-encoded boundary of the
segment before. Micro planning predicts {t_a, t_b, t_c} jointly from it (Eq. 1); content populating fills the two halves
between them (Eq. 3); macro planning chains segments at t_c (maximum throughput) or t_b (minimum memory peak, Eq. 2, 4).
Indices here are 1-based like the paper's. The prefix covers one pixel frame, every other latent four.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from teleworld.world.errors import InvalidInput

PIXEL_FRAMES_PER_LATENT = 4


class ChainMode(Enum):
    """Where the next segment starts: at t_c (maximum throughput) or at t_b (minimum memory peak)."""

    T_B = "t_b"
    T_C = "t_c"


class Group(Enum):
    """A set of latents that is denoised jointly."""

    PREFIX = "prefix"
    PLAN = "plan"
    FIRST_HALF = "first_half"
    SECOND_HALF = "second_half"


@dataclass(frozen=True)
class Timeline:
    """The layout of every segment of a world.

    `latents` is the paper's N; `early`, `middle`, `end` are t_a, t_b, t_c (1-based). A world pins its timeline at birth.
    """

    latents: int
    early: int
    middle: int
    end: int
    chain: ChainMode

    def __post_init__(self) -> None:
        if not 2 <= self.early < self.middle < self.end == self.latents:
            raise InvalidInput(
                "timeline",
                f"needs 2 <= t_a < t_b < t_c = N, got N={self.latents}, {self.early}, {self.middle}, {self.end}",
            )

    @classmethod
    def of(cls, latents: int, chain: ChainMode) -> Timeline:
        """The paper's layout for N latents: t_a = 2, t_b = N/2 + 1, t_c = N."""
        return cls(latents=latents, early=2, middle=latents // 2 + 1, end=latents, chain=chain)

    def members(self, group: Group) -> tuple[int, ...]:
        """The latents of a group, in order."""
        match group:
            case Group.PREFIX:
                return (1,)
            case Group.PLAN:
                return (self.early, self.middle, self.end)
            case Group.FIRST_HALF:
                return tuple(range(self.early + 1, self.middle))
            case Group.SECOND_HALF:
                return tuple(range(self.middle + 1, self.end))

    def visible(self, group: Group) -> tuple[int, ...]:
        """The clean latents that a group sees beside itself, in the order in which the KV cache holds them (Eq. 1 and 3)."""
        match group:
            case Group.PREFIX:
                return ()
            case Group.PLAN:
                return (1,)
            case Group.FIRST_HALF:
                return (1, self.early, self.middle)
            case Group.SECOND_HALF:
                return (1, self.early, self.middle, self.end, *self.members(Group.FIRST_HALF))

    @property
    def boundary(self) -> int:
        """The latent that the next segment starts from."""
        return self.end if self.chain is ChainMode.T_C else self.middle

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that are generated, in order; a group without members, or not shown, is left out."""
        wanted = (Group.PLAN, Group.FIRST_HALF) + ((Group.SECOND_HALF,) if self.chain is ChainMode.T_C else ())
        return tuple(group for group in wanted if self.members(group))

    @property
    def last_shown(self) -> int:
        """The last latent of a segment that is shown; equal to `boundary`."""
        return self.boundary

    @property
    def used(self) -> tuple[int, ...]:
        """Every latent of a segment that is generated, ascending, without the prefix."""
        return tuple(sorted(index for group in self.groups for index in self.members(group)))

    @property
    def key_frames(self) -> tuple[int, ...]:
        """The planned latents that are shown: only these are fused into the memory."""
        return tuple(index for index in self.members(Group.PLAN) if index <= self.last_shown)

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
        """L of DESIGN.md: pixel frames that a segment after the first one shows."""
        return self.chunks_per_segment * PIXEL_FRAMES_PER_LATENT

    @staticmethod
    def frames_of(latent: int) -> range:
        """The 0-based pixel frames, inside a segment, that a latent covers."""
        if latent == 1:
            return range(0, 1)
        return range(1 + (latent - 2) * PIXEL_FRAMES_PER_LATENT, 1 + (latent - 1) * PIXEL_FRAMES_PER_LATENT)
