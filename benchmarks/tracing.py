"""What tracing costs: frames a second of two equal meshes, one with every span recorded and sent, one without, in turns.

    python benchmarks/tracing.py --json

Both meshes have the same processes, send their metrics to the same collector, and walk the same world as fast as they can;
the one differs by OTEL_TRACES_SAMPLER alone, which records all traces or none. Legs alternate (off, on, on, off, ...), so that
a change of the machine's mood hits both. A leg's rate is the frames after its first chunk over the time from the first chunk to
the last. Rates are medians; the last line is {"fps_off", "fps_on", "overhead"}, overhead being 1 - the median over pairs of
fps_on / fps_off, which a mood that lasts longer than a leg does not touch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from teleworld.cli.generate import script_to_controls
from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.client import Chunk, Pace, WorldClient
from teleworld.world.controls import Control
from teleworld.world.spec import spec_of

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "examples" / "start" / "map04_white_hall.png"
WARM_UP = "W*2s"
SEED = 1


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Takes whatever comes, and counts the spans."""

    def __init__(self) -> None:
        self.spans = 0

    def Export(self, request: object, context: grpc.ServicerContext) -> object:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            self.spans += sum(len(scope.spans) for each in request.resource_spans for scope in each.scope_spans)
            return trace_service_pb2.ExportTraceServiceResponse()
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    """A collector, and its endpoint."""
    collector, server = Collector(), grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield collector, f"http://127.0.0.1:{port}"
    finally:
        server.stop(1).wait()


@contextmanager
def told(**variables: str) -> Iterator[None]:
    """Inside, processes that start find these variables."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def rate(client: WorldClient, image: bytes, controls: tuple[Control, ...], chunks: int) -> float:
    """Frames a second of a new world, as fast as the mesh can."""
    world = await client.create_world(image, prompt="", seed=SEED)
    frames, began, ended = 0, 0.0, 0.0
    async with client.walk(world.name, pace=Pace.MAX, until=chunks - 1) as walk:
        for control in controls:
            walk.hold(control.keys, chunk=control.chunk)
        async for event in walk:
            if isinstance(event, Chunk):
                ended = time.perf_counter()
                began, frames = (began, frames + event.frames) if began else (ended, 0)
    await client.delete_world(world.name)
    return frames / (ended - began)


async def compare(model: str, script: str, pairs: int) -> tuple[list[float], list[float], int]:
    """(rates without tracing, rates with it, spans that arrived)."""
    spec, image = spec_of(model), IMAGE.read_bytes()
    config, rates = MeshConfig(model=model), {"off": list[float](), "on": list[float]()}
    with collecting() as (collector, endpoint):
        meshes = {"off": LocalMesh(config), "on": LocalMesh(config)}
        with told(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_TRACES_SAMPLER="always_off"):
            await meshes["off"].__aenter__()
        try:
            with told(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_TRACES_SAMPLER="always_on"):
                await meshes["on"].__aenter__()
            try:
                async with WorldClient(meshes["off"].address) as off, WorldClient(meshes["on"].address) as on:
                    clients = {"off": off, "on": on}
                    for client in clients.values():
                        await rate(client, image, *script_to_controls(WARM_UP, spec))
                    controls, chunks = script_to_controls(script, spec)
                    for pair in range(pairs):
                        for kind in ("off", "on") if pair % 2 else ("on", "off"):
                            rates[kind].append(await rate(clients[kind], image, controls, chunks))
            finally:
                await meshes["on"].__aexit__(None, None, None)
        finally:
            await meshes["off"].__aexit__(None, None, None)
        return rates["off"], rates["on"], collector.spans


def main() -> int:
    parser = argparse.ArgumentParser(description="Frames a second with and without tracing.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--keys", default="W*2s W+RIGHT*2s S*1s .*1s")
    options = parser.parse_args()
    off, on, spans = asyncio.run(compare(options.model, options.keys, options.pairs))
    if not spans:
        print("no span arrived", file=sys.stderr)
        return 1
    if not options.json:
        print(f"off {[round(fps, 1) for fps in off]}, on {[round(fps, 1) for fps in on]}, {spans} spans")
    share = statistics.median(traced / plain for plain, traced in zip(off, on, strict=True))
    result = {
        "fps_off": round(statistics.median(off), 2),
        "fps_on": round(statistics.median(on), 2),
        "overhead": round(1 - share, 4),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
