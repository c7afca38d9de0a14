"""The traces of one running world: one trace a segment, its tasks as children, and a span a chunk that links to them.

World and tenant travel to the workers as W3C baggage beside the trace, the tenant hashed. A call for tasks of several worlds
is a trace of its own, which links to each of them as they link to it: no world is the parent of another's work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from teleworld.runtime.records import Chunk
from teleworld.scheduling.policy import Assignment
from teleworld.world.errors import TeleWorldError
from teleworld.world.identifiers import traced

tracer = trace.get_tracer("teleworld.runtime")


class WorldSpans:
    """Spans of the segments that are under way. Never made current outside of a task."""

    def __init__(self, world: str) -> None:
        self._names = traced(world)
        self._segments: dict[int, Span] = {}
        self._links: dict[int, list[Link]] = {}
        self._bound_at: dict[int, int] = {}
        self._shown: dict[int, int] = {}

    def bound(self, segment: int) -> None:
        """The segment's controls are being bound: its trace begins."""
        if segment not in self._segments:
            self._segments[segment] = tracer.start_span(
                "segment",
                context=trace.set_span_in_context(trace.INVALID_SPAN),
                attributes=self._names | {"teleworld.segment": segment},
            )
            self._bound_at[segment] = time.time_ns()

    @contextmanager
    def task(self, assignment: Assignment) -> Iterator[Span]:
        """The span of one task, from the moment it became ready; a child of its segment's span."""
        task = assignment.task
        if (above := self._unread(task.segment)) is not None:
            with trace.use_span(above, record_exception=False, set_status_on_exception=False):
                yield above
            return
        span = tracer.start_as_current_span(
            f"task {task.kind.value}",
            context=self._inside(task.segment),
            kind=SpanKind.INTERNAL,
            start_time=time.time_ns() - int(assignment.waited * 1e9),
            attributes=self._names
            | {
                "teleworld.segment": task.segment,
                "teleworld.task": task.name,
                "teleworld.worker": assignment.worker,
                "teleworld.attempt": assignment.attempt,
                "teleworld.wait_ms": assignment.waited * 1000,
            },
        )
        with self._baggage(), span as current:
            self._links.setdefault(task.segment, []).append(Link(current.get_span_context()))
            try:
                yield current
            except TeleWorldError as error:
                current.set_status(Status(StatusCode.ERROR, error.reason))
                raise

    def chunk(self, chunk: Chunk, *, last: bool) -> None:
        """The span of a delivered chunk, from the binding of its controls on. After the segment's `last` the trace ends."""
        if chunk.segment not in self._segments:
            return
        tracer.start_span(
            "chunk",
            context=self._inside(chunk.segment),
            links=self._links.get(chunk.segment, []),
            start_time=self._bound_at[chunk.segment],
            attributes=self._names
            | {
                "teleworld.segment": chunk.segment,
                "teleworld.chunk": chunk.index,
                "teleworld.latent": chunk.latent,
            },
        ).end()
        self._shown[chunk.segment] = chunk.latent
        if last:
            self._end(chunk.segment)

    @contextmanager
    def inside(self, segment: int) -> Iterator[None]:
        """Inside, the segment's span is the current one: what is measured there has it as its exemplar."""
        if (span := self._segments.get(segment)) is None:
            yield
            return
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield

    def cut(self, segment: int, last: int) -> None:
        """A segment ends at its latent `last`; so does its trace, if that is delivered already."""
        if segment in self._segments:
            self._segments[segment].set_attribute("teleworld.cut", last)
            if self._shown.get(segment) == last:
                self._end(segment)

    def close(self) -> None:
        """End what is open."""
        for span in self._segments.values():
            span.end()
        self._segments.clear()

    def _end(self, segment: int) -> None:
        self._segments.pop(segment).end()
        for table in (self._links, self._bound_at, self._shown):
            table.pop(segment, None)

    @contextmanager
    def _baggage(self) -> Iterator[None]:
        carried = context.get_current()
        for name, value in self._names.items():
            carried = baggage.set_baggage(name, value, carried)
        token = context.attach(carried)
        try:
            yield
        finally:
            context.detach(token)

    def _unread(self, segment: int) -> Span | None:
        """The span of a segment that is not recorded: its ids go with its tasks, but nothing is noted inside of it."""
        span = self._segments.get(segment)
        return None if span is None or span.is_recording() else span

    def _inside(self, segment: int) -> Context | None:
        span = self._segments.get(segment)
        return trace.set_span_in_context(span) if span else None


@contextmanager
def call_for(tasks: Sequence[Span]) -> Iterator[None]:
    """The span of one call that does several tasks, with links to their spans and from them."""
    links = [Link(task.get_span_context()) for task in tasks]
    nobody = context.attach(Context())
    try:
        with tracer.start_as_current_span("batch", links=links, attributes={"teleworld.batch": len(links)}) as current:
            for task in tasks:
                task.add_link(current.get_span_context())
            yield
    finally:
        context.detach(nobody)
