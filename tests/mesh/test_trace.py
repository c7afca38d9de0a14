"""One chunk's way through the mesh, as an operator sees it: a real trace at a real OTLP receiver."""

from __future__ import annotations

import pytest

from teleworld.world.timeline import ChainMode
from tests.mesh.conftest import walk_mesh
from tests.otlp import OtlpReceiver, Span

WORKERS = ("planner", "populator", "reconstructor", "decoder")
EDGES = {("teleworld-gateway", f"teleworld-{worker}") for worker in WORKERS}
TASK = {"world", "tenant", "segment", "task", "attempt"}
TOLD = {"queue_ms", "compute_ms"}
"""Attributes that the documentation reads a slow chunk by: of a task on either side, and of the worker's span alone."""


def covered(spans: list[Span], start: int, end: int) -> float:
    """The share of [start, end] that lies inside at least one span."""
    inside, at = 0, start
    for span in sorted(spans, key=lambda span: span.start_ns):
        first, last = max(span.start_ns, at), min(span.end_ns, end)
        if last > first:
            inside += last - first
            at = last
    return inside / (end - start)


@pytest.mark.timeout(400)
async def test_a_chunks_spans_cover_its_latency_across_all_services(start_mesh, picture, monkeypatch):
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        async with start_mesh() as mesh:
            await walk_mesh(mesh.address, picture, ChainMode.T_B, 13)
        spans = receiver.spans  # the services have flushed: they drained before the mesh was gone
    chunk = next(span for span in spans if span.name == "chunk" and span.attributes["teleworld.chunk"] == 9)
    trace = {span.span_id: span for span in spans if span.trace_id == chunk.trace_id}
    segment = trace[chunk.parent_id]
    assert segment.name == "segment" and not segment.parent_id
    tasks = [span for span in trace.values() if span.name.startswith("task ")]
    assert {span.parent_id for span in tasks} == {segment.span_id}
    # Decoding goes in display order: where the decoder is behind, a chunk waits for tasks of the segment before its own.
    work = [span for span in spans if span.name.startswith("task ")]
    assert covered(work, chunk.start_ns, chunk.end_ns) >= 0.95
    entered = [span for span in trace.values() if span.parent_id and trace[span.parent_id].service != span.service]
    assert {(trace[span.parent_id].service, span.service) for span in entered} == EDGES
    for span in entered:
        assert {f"teleworld.{name}" for name in TASK | TOLD} <= span.attributes.keys()
        call = trace[span.parent_id]
        task = trace[call.parent_id]
        assert (
            task.parent_id == segment.span_id and task.attributes["teleworld.task"] == span.attributes["teleworld.task"]
        )
        assert {f"teleworld.{name}" for name in TASK | {"wait_ms", "worker"}} <= task.attributes.keys()
        assert any(name.startswith("teleworld.stage.") for name in task.attributes)
    made_by = ("task guide", "task plan", "task populate")
    assert set(chunk.links) >= {span.span_id for span in tasks if span.name in made_by and span.end_ns <= chunk.end_ns}
    assert set(chunk.links) & {span.span_id for span in tasks if span.name == "task decode"}
