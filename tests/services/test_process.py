"""A worker as a real process: what it announces, how it drains, how it refuses to start, what it logs and traces."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from teleworld._proto.planner.v1.planner_pb2_grpc import PlannerServiceStub
from teleworld.rpc import health
from teleworld.rpc.convert import planner
from teleworld.rpc.workers import PLANNER, PlannerClient
from teleworld.world import errors
from tests.otlp import OtlpReceiver
from tests.rpc import samples
from tests.services.processes import process

pytestmark = pytest.mark.asyncio
MODULE = "tests.services.gated_planner"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_process(pipe: Path, number: signal.Signals) -> None:
    async with process(MODULE, str(pipe), drain_seconds=20) as worker:
        said = await worker.heard("serving")
        assert said["service"] == "planner"
        async with PlannerClient(worker.address) as client:
            watch = health.watch(client.channel, PLANNER)
            assert await anext(watch) is True
            under_way = asyncio.create_task(client.plan(samples.PLAN, 30))
            gate = await asyncio.to_thread(pipe.open, "wb")
            worker.child.send_signal(number)
            assert await anext(watch) is False
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            with pytest.raises(errors.Unavailable):
                await client.plan(samples.PLAN, 5)
            assert not under_way.done()
            gate.close()
            want = samples.PLAN.guidance.latents + samples.PLAN.prefix
            assert np.array_equal((await under_way).latents, want)
        assert await worker.ended() == 0


async def test_the_drain_has_a_bound(pipe: Path) -> None:
    async with process(MODULE, str(pipe), drain_seconds=0.3) as worker:
        await worker.heard("serving")
        async with PlannerClient(worker.address) as client:
            under_way = asyncio.create_task(client.plan(samples.PLAN, 30))
            gate = await asyncio.to_thread(pipe.open, "wb")
            worker.child.terminate()
            with pytest.raises(errors.Unavailable):
                await under_way
            assert await worker.ended(10) == 0
        gate.close()


async def test_a_killed_worker_is_unavailable(pipe: Path) -> None:
    async with process(MODULE, str(pipe)) as worker:
        await worker.heard("serving")
        async with PlannerClient(worker.address) as client:
            under_way = asyncio.create_task(client.plan(samples.PLAN, 30))
            gate = await asyncio.to_thread(pipe.open, "wb")
            worker.child.kill()
            with pytest.raises(errors.Unavailable):
                await under_way
        gate.close()


async def test_bad_settings_end_it_with_the_variable_named() -> None:
    async with process(MODULE, "unused", port=70000) as worker:
        assert await worker.ended() == 2
        assert "TELEWORLD_PORT" in await worker.log()
    async with process(MODULE, "unused", log_level="LOUD") as worker:
        assert await worker.ended() == 2
        assert "log_level" in await worker.log()


async def test_a_model_that_cannot_be_loaded_ends_it(pipe: Path) -> None:
    async with process(MODULE, str(pipe), model="broken") as worker:
        assert await worker.ended() == 2
        assert "dit.safetensors: has no blocks" in await worker.log()


async def test_a_signal_during_warm_up_ends_it(pipe: Path) -> None:
    async with process(MODULE, str(pipe), model="slow") as worker:
        await worker.heard("listening")
        gate = await asyncio.to_thread(pipe.open, "wb")
        async with PlannerClient(worker.address) as client:
            assert not await health.check(client.channel, PLANNER, 5)
        worker.child.terminate()
        assert await worker.ended() == 0
        gate.close()


async def test_a_port_in_use_ends_it_with_the_setting_named(pipe: Path) -> None:
    async with process(MODULE, str(pipe)) as first:
        await first.heard("listening")
        async with process(MODULE, str(pipe), port=first.address.rpartition(":")[2]) as second:
            assert await second.ended() == 2
            assert "port: cannot listen on" in await second.log()


async def test_a_collector_that_is_away_never_holds_the_end(pipe: Path) -> None:
    async with process(MODULE, str(pipe), otlp_endpoint="http://127.0.0.1:1") as worker:
        await worker.heard("serving")
        async with PlannerClient(worker.address) as client:
            await client.embed(samples.EMBED, 5)
        worker.child.terminate()
        assert await worker.ended(8) == 0


async def test_spans_metrics_and_logs_tell_one_story(pipe: Path) -> None:
    trace_id, parent_id = "a" * 31 + "1", "b" * 15 + "2"
    with OtlpReceiver() as collector:
        async with process(
            MODULE, str(pipe), log_level="DEBUG", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint
        ) as worker:
            await worker.heard("serving")
            async with PlannerClient(worker.address) as client:
                message = planner.write_encode_request(samples.ENCODE)
                caller = (("traceparent", f"00-{trace_id}-{parent_id}-01"),)
                await PlannerServiceStub(client.channel).Encode(message, timeout=10, metadata=caller)
                with pytest.raises(errors.PreconditionFailed):
                    await client.embed(samples.EmbedRequest("other", "x"), 10)
            worker.child.terminate()
            assert await worker.ended() == 0
            lines = [json.loads(line) for line in (await worker.log()).splitlines()]
        served = collector.wait_for(lambda spans: next((s for s in spans if s.name == f"{PLANNER}/Encode"), None))
        failed = collector.wait_for(lambda spans: next((s for s in spans if s.name == f"{PLANNER}/Embed"), None))
        assert {
            "rpc.server.duration",
            "teleworld.worker.compute.duration",
            "teleworld.worker.queue.duration",
        } <= collector.metrics
    assert (served.service, served.trace_id, served.parent_id) == ("teleworld-planner", trace_id, parent_id)
    assert served.attributes["teleworld.world"] == "w"
    assert served.attributes["teleworld.segment"] == 2
    assert served.attributes["teleworld.compute_ms"] >= 0
    assert served.attributes["teleworld.queue_ms"] >= 0
    assert failed.error
    call = next(line for line in lines if line.get("method") == f"/{PLANNER}/Encode")
    assert (call["trace_id"], call["span_id"], call["code"]) == (trace_id, served.span_id, "OK")
    assert call["service"] == "planner"


async def test_a_trace_goes_through_a_real_hop(pipe: Path) -> None:
    with OtlpReceiver() as collector:
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        async with process(MODULE, str(pipe), **endpoint) as worker:
            await worker.heard("serving")
            async with process("tests.services.caller", worker.address, **endpoint) as caller:
                await caller.heard("called")
                assert await caller.ended() == 0
            worker.child.terminate()
            assert await worker.ended() == 0
        spans = {
            (span.service, span.name): span for span in collector.wait_for(lambda spans: len(spans) >= 3 and spans)
        }
    segment = spans["teleworld-caller", "segment"]
    called = spans["teleworld-caller", f"{PLANNER}/Encode"]
    served = spans["teleworld-planner", f"{PLANNER}/Encode"]
    assert segment.trace_id == called.trace_id == served.trace_id
    assert (segment.parent_id, called.parent_id, served.parent_id) == ("", segment.span_id, called.span_id)
    assert segment.start_ns <= called.start_ns <= served.start_ns
    assert served.end_ns <= called.end_ns <= segment.end_ns
