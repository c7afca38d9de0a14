"""Emulated planning and populating: what the planner and the populator services run in place of networks.

Which results depend on which inputs is exactly as in `teleworld.generation`, so a mesh that gives these cores what they
accept gives the real ones what they need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teleworld.emulation.chain import GUIDANCE, PICTURE, Stamp, digest, expect, read_latent, write_latent, write_picture
from teleworld.emulation.model import MAX_TOKENS, EmulatedModel
from teleworld.scheduling.tasks import Kind
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import Group, Timeline
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    Float,
    Guidance,
    LatentsResult,
    PlanRequest,
    PopulateRequest,
    Prompt,
    TaskContext,
)


def embed_text(model: EmulatedModel, text: str) -> Prompt:
    """A prompt as the emulated model reads it: a token a word and one for the end, at most 512; each number is a byte."""
    tokens = min(len(text.split()) + 1, MAX_TOKENS)
    named = np.frombuffer(digest("prompt", text), np.uint8).astype(np.float32)
    return Prompt(text, np.resize(named, (tokens, model.text_width)))


def read_prompt(model: EmulatedModel, prompt: Prompt) -> bytes:
    """The digest of a prompt. Raises InvalidInput unless its embedding belongs to its text."""
    if not np.array_equal(prompt.embedding, embed_text(model, prompt.text).embedding):
        raise InvalidInput("prompt.embedding", "does not belong to the text")
    return digest("prompt", prompt.text)


def read_prefix(prefix: Float, context: TaskContext) -> Stamp:
    """The stamp of the prefix of a task's segment."""
    stamp = read_latent(prefix, "prefix")
    expect(stamp, "prefix", made_by=Group.PREFIX, seed=context.seed, segment=context.segment, index=1)
    return stamp


def read_clean(
    latents: Sequence[Float] | Float, order: tuple[int, ...], timeline: Timeline, context: TaskContext, field: str
) -> dict[int, Stamp]:
    """The stamps of clean latents given in `order`. Each must be of its segment, its place and its group, and made from
    those of its neighbours here that its group sees.
    """
    if len(latents) != len(order):
        raise InvalidInput(field, f"expected the latents {order}, got {len(latents)}")
    stamps: dict[int, Stamp] = {}
    for row, index in enumerate(order):
        stamp = stamps[index] = read_latent(latents[row], f"{field}[{row}]")
        group = timeline.group_of(index)
        expect(stamp, f"{field}[{row}]", made_by=group, seed=context.seed, segment=context.segment, index=index)
        if group and all(seen in stamps for seen in timeline.visible(group)):
            expect(stamp, f"{field}[{row}]", sees=seen_by(timeline, group, stamps))
    return stamps


def read_guidance(guidance: Guidance, indices: tuple[int, ...], context: TaskContext) -> list[Stamp]:
    """The stamps of the guidance of `indices`, all of them from one state of the memory."""
    if guidance.indices != indices:
        raise InvalidInput("guidance.indices", f"expected {indices}, got {guidance.indices}")
    stamps = [read_latent(latent, f"guidance.latents[{row}]") for row, latent in enumerate(guidance.latents)]
    for row, (stamp, index) in enumerate(zip(stamps, indices, strict=True)):
        field, first = f"guidance.latents[{row}]", stamps[0]
        expect(stamp, field, made_by=GUIDANCE, seed=context.seed, segment=context.segment, index=index)
        expect(stamp, field, origin=first.origin, sees=first.sees)
    return stamps


def seen_by(timeline: Timeline, group: int, stamps: dict[int, Stamp]) -> bytes:
    """The digest of the clean latents that a group sees, in their order."""
    return digest(*(stamps[index].content for index in timeline.visible(group)))


def _make_group(
    model: EmulatedModel,
    context: TaskContext,
    timeline: Timeline,
    group: int,
    clean: dict[int, Stamp],
    guides: list[Stamp],
    prompt: Prompt,
) -> Float:
    """The latents of a group, float32 [n, C, h, w], made jointly: each depends on all inputs of the group."""
    origin, sees = guides[0].origin, seen_by(timeline, group, clean)
    whole = digest(context.seed, context.segment, group, sees, *(g.content for g in guides), read_prompt(model, prompt))
    return np.stack(
        [
            write_latent(
                Stamp(group, context.seed, context.segment, index, origin, 0, sees, digest(whole, index)),
                model.spec.latent_shape,
            )
            for index in timeline.members(group)
        ]
    )


class EmulatedPlanner:
    """Tasks I, P and K. Raises InvalidInput naming the field that no correct mesh would have sent."""

    def __init__(self, model: EmulatedModel) -> None:
        self.model = model

    def embed(self, request: EmbedRequest) -> Prompt:
        """Token embeddings; takes no device time."""
        return embed_text(self.model, request.text)

    def encode(self, request: EncodeRequest) -> EncodeResult:
        """Task I: the prefix of segment 0, from any picture."""
        context = request.context
        with self.model.busy(Kind.ENCODE, [context], 1) as stages:
            latent = write_latent(
                _prefix(context.seed, 0, 0, digest("start", request.picture)), self.model.spec.latent_shape
            )
        return EncodeResult(latent, stages)

    def plan(self, request: PlanRequest) -> LatentsResult:
        """Task P."""
        return self.plan_many([request])[0]

    def plan_many(self, requests: Sequence[PlanRequest]) -> list[LatentsResult]:
        """Several tasks P in one call; the results are those of single calls."""
        members = requests[0].timeline.members(Group.PLAN)
        with self.model.busy(Kind.PLAN, [request.context for request in requests], len(members), 1) as stages:
            latents = [self._plan(request) for request in requests]
        return [LatentsResult(members, made, stages) for made in latents]

    def _plan(self, request: PlanRequest) -> Float:
        context, timeline = request.context, request.timeline
        prefix = read_prefix(request.prefix, context)
        guides = read_guidance(request.guidance, timeline.members(Group.PLAN), context)
        _check_freshness(prefix, guides[0], timeline)
        return _make_group(self.model, context, timeline, Group.PLAN, {1: prefix}, guides, request.prompt)

    def bridge(self, request: BridgeRequest) -> BridgeResult:
        """Task K: a picture of each key latent, and the next prefix from the last one. Each picture depends on its own key,
        as decode([x^1, x^k, x^k]) does, so that keys may be bridged one by one."""
        context, timeline, lens = request.context, request.timeline, self.model.spec.lens
        with self.model.busy(Kind.BRIDGE, [context], len(request.keys)) as stages:
            prefix = read_prefix(request.prefix, context)
            order = timeline.key_frames
            keys = read_clean([request.prefix, *request.keys], (1, *order), timeline, context, "keys")
            guides = read_guidance(request.guidance, order, context)
            pictures = []
            for index, guide in zip(order, guides, strict=True):
                expect(keys[index], "keys", origin=guide.origin)
                content = digest("picture", prefix.content, keys[index].content, guide.content)
                ended = index if index == timeline.boundary else 0
                pictures.append(
                    Stamp(
                        PICTURE, context.seed, context.segment, index, guide.origin, ended, keys[index].content, content
                    )
                )
            boundary = _prefix(context.seed, context.segment + 1, timeline.boundary, pictures[-1].content)
            made = np.stack([write_picture(stamp, lens.height, lens.width) for stamp in pictures])
            latent = write_latent(boundary, self.model.spec.latent_shape)
        return BridgeResult(made, latent, stages)


class EmulatedPopulator:
    """Task F of every group. Raises as the planner does."""

    def __init__(self, model: EmulatedModel) -> None:
        self.model = model

    def populate(self, request: PopulateRequest) -> LatentsResult:
        """Task F."""
        return self.populate_many([request])[0]

    def populate_many(self, requests: Sequence[PopulateRequest]) -> list[LatentsResult]:
        """Several tasks F in one call; the results are those of single calls."""
        first = requests[0]
        members, seen = first.timeline.members(first.group), len(first.timeline.visible(first.group))
        contexts = [request.context for request in requests]
        with self.model.busy(Kind.POPULATE, contexts, len(members), seen) as stages:
            latents = [self._populate(request) for request in requests]
        return [
            LatentsResult(request.timeline.members(request.group), made, stages)
            for request, made in zip(requests, latents, strict=True)
        ]

    def _populate(self, request: PopulateRequest) -> Float:
        context, timeline, group = request.context, request.timeline, request.group
        clean = read_clean(request.clean, timeline.visible(group), timeline, context, "clean")
        guides = read_guidance(request.guidance, timeline.members(group), context)
        for row, (index, stamp) in enumerate(clean.items()):
            if index > 1:
                expect(stamp, f"clean[{row}]", origin=guides[0].origin)
        return _make_group(self.model, context, timeline, group, clean, guides, request.prompt)


def _prefix(seed: int, segment: int, ended: int, sees: bytes) -> Stamp:
    return Stamp(Group.PREFIX, seed, segment, 1, -1, ended, sees, digest("prefix", seed, segment, ended, sees))


def _check_freshness(prefix: Stamp, guide: Stamp, timeline: Timeline) -> None:
    """The guidance of segment s must come from a memory that holds segment s - 1, down to the very picture that the prefix
    encodes. Behind a segment that was cut, it may lag by one; a fork begins with the memory of its source.
    """
    field, before = "guidance.latents[0]", prefix.segment - 1
    was_cut = prefix.ended not in (0, timeline.boundary)
    if guide.origin == before:
        expect(guide, field, sees=prefix.sees)
    elif not (prefix.segment == 0 or (was_cut and (guide.origin == before - 1 or prefix.segment == 1))):
        raise InvalidInput(field, f"was rendered from a memory of segment {guide.origin}; the task needs {before}")
