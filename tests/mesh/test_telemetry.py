"""What a real mesh sends to its collector: every metric that operations rely on, as the documentation has it, and no other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from teleworld.client import Chunk, Pace, WorldClient
from teleworld.world.controls import Keys
from teleworld.world.identifiers import hashed_tenant
from tests.mesh.conftest import PROMPT, StartMesh
from tests.otlp import OtlpReceiver, Point, Span

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
RARE = {
    "teleworld.gateway.refused",  # admission had no reason to refuse
    "teleworld.gateway.underruns",  # playback need not run dry
    "teleworld.gateway.spectators",
    "teleworld.worker.refused",
    "teleworld.worker.batch",  # one world has no company in a call
    "teleworld.segments.swept",
}
"""What may stay away from a short walk in which nothing goes wrong."""
MAX_SERIES = 64
"""Of one metric in one process: methods by statuses are the most."""


@dataclass(frozen=True)
class Documented:
    kind: str
    unit: str
    labels: dict[str, set[str]]


def documented() -> dict[str, Documented]:
    """The table of metrics. Where the values of a label are listed, these are all that it has."""
    rows = re.findall(r"^\| `([\w.]+)` \| (\w+), ([^|]+) \| ([^|]*)\|", OPERATIONS.read_text(), re.MULTILINE)
    found = {}
    for name, kind, unit, labels in rows:
        listed = re.findall(r"`(\w+)`(?:: ([\w, ]+?))?(?=, `| *$)", labels.strip())
        values = {label: {value for value in re.split(r", *", told) if value} for label, told in listed}
        found[name] = Documented(kind, unit.strip(), values)
    return found


@dataclass(frozen=True)
class Seen:
    """What arrived of one walk in `world`."""

    world: str
    points: list[Point]
    spans: list[Span]
    chunks: list[Chunk]


@asynccontextmanager
async def walked(
    start_mesh: StartMesh, picture: bytes, collector: OtlpReceiver
) -> AsyncIterator[tuple[str, list[Chunk]]]:
    """A short live walk over a mesh that reports to `collector`."""
    async with start_mesh() as mesh, WorldClient(mesh.address) as client:
        world, chunks = await client.create_world(picture, prompt=PROMPT, seed=3), []
        async with client.walk(world.name, pace=Pace.REALTIME, until=16) as walk:
            async for event in walk:
                if isinstance(event, Chunk):
                    chunks.append(event)
                    walk.hold(Keys.W if event.index % 2 else Keys.A)
        yield world.name, chunks


@pytest.fixture
async def seen(start_mesh: StartMesh, picture: bytes, monkeypatch: pytest.MonkeyPatch) -> Seen:
    with OtlpReceiver() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "500")
        async with walked(start_mesh, picture, collector) as (world, chunks):
            pass
        return Seen(world, collector.points, collector.spans, chunks)


@pytest.mark.timeout(400)
async def test_a_walk_is_measured_as_documented_and_traced_with_its_world(seen: Seen) -> None:
    table, arrived = documented(), {point.name for point in seen.points}
    assert len(table) > 25
    assert table.keys() - RARE <= arrived, "documented, but not sent"
    ours = {name for name in arrived if name.startswith(("teleworld.", "rpc."))}
    assert ours <= table.keys(), "sent, but not documented"
    _check_points([point for point in seen.points if point.name in table], table, seen.world)
    _check_exemplars(seen)
    _check_baggage(seen)


def _check_points(points: list[Point], table: dict[str, Documented], world: str) -> None:
    series: dict[tuple[str, str], set[tuple[tuple[str, str], ...]]] = {}
    own = world.removeprefix("worlds/")
    for point in points:
        row = table[point.name]
        assert point.unit == row.unit, point
        assert point.kind == row.kind or (point.kind, row.kind) == ("level", "gauge"), point
        assert {label.replace(".", "_") for label in point.labels} == row.labels.keys(), point
        for label, value in point.labels.items():
            assert not (allowed := row.labels[label.replace(".", "_")]) or str(value) in allowed, point
            assert own not in str(value) and not re.search(r"\d+\.\d+\.\d+\.\d+|:\d{2,}", str(value)), point
        labels = tuple(sorted((name, str(value)) for name, value in point.labels.items()))
        series.setdefault((point.service, point.name), set()).add(labels)
    assert max(map(len, series.values())) <= MAX_SERIES


def _check_exemplars(seen: Seen) -> None:
    """A slow bucket leads to the trace of the segment that the chunk belongs to, or of the task."""
    segments = {span.trace_id for span in seen.spans if span.name == "segment"}
    for name in ("key_to_frame", "chunk"):
        measured = [point for point in seen.points if point.name == f"teleworld.gateway.{name}.duration"]
        led = {trace for point in measured for trace in point.exemplars}
        assert led and led <= segments, name
    tasks = [point for point in seen.points if point.name == "teleworld.worker.compute.duration"]
    assert {trace for point in tasks for trace in point.exemplars} & segments


def _check_baggage(seen: Seen) -> None:
    """World and tenant are on the spans of every worker, also where the request itself does not name them."""
    own = seen.world.removeprefix("worlds/")
    segments = {span.trace_id for span in seen.spans if span.name == "segment"}
    by_service: dict[str, list[Span]] = {}
    for span in seen.spans:
        if span.trace_id in segments and span.name.startswith("teleworld.") and span.service != "teleworld-gateway":
            by_service.setdefault(span.service, []).append(span)
    assert by_service.keys() == {f"teleworld-{name}" for name in ("planner", "populator", "reconstructor", "decoder")}
    for span in [span for spans in by_service.values() for span in spans]:
        assert span.attributes["teleworld.world"] == own
        assert span.attributes["teleworld.tenant"] == hashed_tenant("")
