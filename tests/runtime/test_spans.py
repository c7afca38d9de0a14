"""What a world's traces say of work that is done for several worlds at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from teleworld.runtime import spans
from teleworld.runtime.batches import Batch


class Port:
    """A worker that notes what its call carries along."""

    def __init__(self) -> None:
        self.heard: list[tuple[trace.Span, dict[str, object]]] = []

    async def plan_many(self, requests: Sequence[int], timeout: float) -> list[int]:
        self.heard.append((trace.get_current_span(), dict(baggage.get_all())))
        return [request + 1 for request in requests]


async def test_a_call_for_two_worlds_is_a_trace_of_its_own_and_linked_with_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finished, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    tracer, port = provider.get_tracer("test"), Port()
    monkeypatch.setattr(spans, "tracer", tracer)
    batch = Batch(port, "plan", 5.0)

    async def ask(world: str, request: int) -> int:
        with spans.WorldSpans(world)._baggage(), tracer.start_as_current_span(f"task of {world}"):
            return int(await batch.answer(request))

    assert await asyncio.gather(ask("one", 1), ask("two", 2)) == [2, 3]
    done = {span.name: span for span in finished.get_finished_spans()}
    call, tasks = done["batch"], [done["task of one"], done["task of two"]]
    ((current, carried),) = port.heard
    assert current.get_span_context() == call.context and carried == {}, "it is not one world's more than the other's"
    assert call.parent is None
    assert [link.context for link in call.links] == [task.context for task in tasks]
    assert all([link.context for link in task.links] == [call.context] for task in tasks)
