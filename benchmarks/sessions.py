"""How many worlds one gateway process on one core carries in real time.

    python benchmarks/sessions.py --json

A real gateway and a real Redis, each a process, over emulated workers with small tensors (the cost table `load-test`) that
share one process (`load_workers.py`), so that what is loaded is the gateway. It has a core for itself; workers, Redis and
the clients of this process share the others. Worlds are attached one
after the other, each played in real time at 16 frames a second, four chunks a second, and acknowledged as they arrive.

worlds: how many walked at once. fps: the rate of the slowest of them over the measured time. added_ms_p99: of all chunks,
the time from the end of their decoding on the device to their arrival here: the worker's answer, the journal in Redis, the
stream. rss_growth_mb: of the gateway's resident memory from the middle of the measured time to its end. refused_cleanly:
one more world is answered RESOURCE_EXHAUSTED with a time to come back, while the others walk on. The last line is
{"worlds": ..., "fps": ..., "added_ms_p99": ..., "rss_growth_mb": ..., "refused_cleanly": ...}.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import psutil
from PIL import Image

from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2, world_service_pb2_grpc
from teleworld._proto.types.v1 import task_pb2
from teleworld.cli.mesh import LocalMesh, MeshConfig
from teleworld.cli.report import percentile
from teleworld.emulation.accounts import Entry, read_log
from teleworld.rpc.channels import open_channel
from teleworld.rpc.status import from_rpc_error
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import Overloaded
from teleworld.world.spec import spec_of
from teleworld.world.timeline import ChainMode

MODEL = "emulated-tiny"
WORLDS_A_CHANNEL = 25
ATTACH_EVERY_S = 0.08
SETTLE_S = 5.0
Up = world_service_pb2.StreamWorldRequest


class LoadMesh(LocalMesh):
    """A local mesh whose workers share a process."""

    async def _start(self) -> None:
        redis = await self._start_redis()
        workers = self._launch("workers", "benchmarks.load_workers", None)
        await self._served(workers)
        addresses = zip(Pool, workers.address.split(","), strict=True)
        gateway = self._launch(
            "gateway",
            "services.gateway",
            "TELEWORLD_GATEWAY_PORT",
            TELEWORLD_GATEWAY_REDIS_URL=redis,
            TELEWORLD_GATEWAY_HOST=self.config.host,
            TELEWORLD_GATEWAY_PORT="0",
            **{f"TELEWORLD_GATEWAY_{pool.value.upper()}_ADDRESSES": address for pool, address in addresses},
        )
        await self._served(gateway)
        self.address = gateway.address


@dataclass
class Visitor:
    """A client of one world. arrivals: number and moment of each chunk."""

    stub: world_service_pb2_grpc.WorldServiceStub
    world: str
    arrivals: list[tuple[int, float]] = field(default_factory=list)
    ended: str = ""

    async def walk(self) -> None:
        """Attach, and acknowledge every chunk as it comes, until cancelled or told that it is over."""
        call = self.stub.StreamWorld()
        try:
            attach = stream_pb2.Attach(name=self.world, pace=stream_pb2.PACE_REALTIME, credit=8)
            await call.write(Up(attach=attach))
            while (response := await call.read()) is not grpc.aio.EOF:
                if response.HasField("chunk"):
                    self.arrivals.append((response.chunk.index, time.monotonic()))
                    await call.write(Up(ack=stream_pb2.Ack(chunk=response.chunk.index)))
                elif response.HasField("end"):
                    self.ended = stream_pb2.EndReason.Name(response.end.reason)
                    return
        except grpc.RpcError as error:
            self.ended = str(from_rpc_error(error))
        finally:
            call.cancel()


@dataclass(frozen=True)
class Measured:
    """What a run showed; `cpu` is the share of a core that each process took."""

    fps: list[float]
    added: list[float]
    rss_growth: float
    cpu: dict[str, float]
    refused: bool
    ended: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description="Worlds that one gateway on one core carries in real time.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--worlds", type=int, default=100, help="(default: 100)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring (default: 30)")
    options = parser.parse_args()
    measured = asyncio.run(run(options.worlds, options.seconds))
    if not options.json:
        shares = ", ".join(
            f"p{share * 100:g} {percentile(measured.added, share):.1f}" for share in (0.5, 0.9, 0.99, 0.999)
        )
        print("shares of a core: " + ", ".join(f"{name} {share:.0%}" for name, share in measured.cpu.items()))
        print(f"added latency in ms: {shares}")
        print(f"frames a second: slowest {min(measured.fps):.2f}, median {percentile(measured.fps, 0.5):.2f}")
    for reason in sorted(set(measured.ended)):
        print(f"{measured.ended.count(reason)} streams ended: {reason}", file=sys.stderr)
    result = {
        "worlds": options.worlds - len(measured.ended),
        "fps": round(min(measured.fps), 2),
        "added_ms_p99": round(percentile(measured.added, 0.99) or 0.0, 2),
        "rss_growth_mb": round(measured.rss_growth, 2),
        "refused_cleanly": measured.refused,
    }
    print(json.dumps(result))
    return 0


async def run(worlds: int, seconds: float) -> Measured:
    """Attach the visitors, let them settle, measure."""
    with tempfile.TemporaryDirectory(prefix="teleworld-sessions-") as folder:
        log = Path(folder) / "holds.jsonl"
        os.environ |= {
            "TELEWORLD_EMULATED_LOG": str(log),
            "TELEWORLD_GATEWAY_MAX_STREAMS": str(worlds),
            # Admission by measured service times would refuse worlds when this machine's other core is full of workers.
            "TELEWORLD_GATEWAY_UTILISATION": "0",
            "TELEWORLD_QUEUE": str(worlds),
        }
        async with AsyncExitStack() as stack:
            mesh = await stack.enter_async_context(LoadMesh(MeshConfig(model=MODEL)))
            gateway = part_cores(mesh)
            visitors = await arrive(mesh.address, worlds + 1, stack)
            tasks = []
            for visitor in visitors[:worlds]:
                tasks.append(asyncio.create_task(visitor.walk()))
                await asyncio.sleep(ATTACH_EVERY_S)
            await asyncio.sleep(SETTLE_S)
            begun, cpu, rss = time.monotonic(), cpu_seconds(mesh), [gateway.memory_info().rss]
            refused = await refuses(visitors[worlds])
            for _ in range(2):
                await asyncio.sleep(seconds / 2)
                rss.append(gateway.memory_info().rss)
            over, after = time.monotonic(), cpu_seconds(mesh)
            busy = {name: (after[name] - cpu[name]) / (over - begun) for name in cpu}
            ended = [visitor.ended for visitor in visitors[:worlds] if visitor.ended]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        decoded = {(entry.world, entry.task): entry for entry in read_log(log.read_text().splitlines())}
    within = [(visitor, [a for a in visitor.arrivals if begun <= a[1] <= over]) for visitor in visitors[:worlds]]
    return Measured(
        fps=[rate(arrivals) for _, arrivals in within],
        added=[1e3 * value for visitor, arrivals in within for value in added(visitor, arrivals, decoded)],
        rss_growth=(rss[2] - rss[1]) / 2**20,
        cpu=busy,
        refused=refused,
        ended=ended,
    )


def part_cores(mesh: LocalMesh) -> psutil.Process:
    """Give the gateway the first core that this process may use, and everything else the others; returns the gateway."""
    first, *rest = sorted(os.sched_getaffinity(0))
    gateway = psutil.Process(mesh.processes["gateway"].pid)
    ours = psutil.Process()
    for process in [ours, *ours.children(recursive=True)]:
        for thread in process.threads():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, {first} if process == gateway else set(rest or [first]))
    return gateway


def cpu_seconds(mesh: LocalMesh) -> dict[str, float]:
    """Processor time of every process so far, that of the clients, which is this one, included."""
    pids = {name: process.pid for name, process in mesh.processes.items()} | {"clients": os.getpid()}
    pids["redis"] = psutil.Process(pids["redis"]).children()[0].pid  # behind its launcher
    used = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: times.user + times.system for name, times in used.items()}


async def arrive(address: str, count: int, stack: AsyncExitStack) -> list[Visitor]:
    """Visitors of new worlds of their own."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((80, 128, 3), 90, np.uint8)).save(buffer, "png")
    visitors: list[Visitor] = []
    for number in range(count):
        if number % WORLDS_A_CHANNEL == 0:
            stub = world_service_pb2_grpc.WorldServiceStub(await stack.enter_async_context(open_channel(address)))
        request = world_service_pb2.CreateWorldRequest(
            image=buffer.getvalue(),
            prompt="a hall",
            seed=number,
            model=MODEL,
            chain_mode=task_pb2.CHAIN_MODE_T_B,
            reanchor=False,
        )
        visitors.append(Visitor(stub, (await stub.CreateWorld(request, timeout=20)).world.name))
    return visitors


async def refuses(visitor: Visitor) -> bool:
    """Whether one more world is told when to come back."""
    call = visitor.stub.StreamWorld()
    try:
        await call.write(Up(attach=stream_pb2.Attach(name=visitor.world, pace=stream_pb2.PACE_REALTIME)))
        while await call.read() is not grpc.aio.EOF:
            pass
        code, ours = await call.code(), None
    except grpc.RpcError as error:
        code, ours = error.code(), from_rpc_error(error)
    finally:
        call.cancel()
    return code is grpc.StatusCode.RESOURCE_EXHAUSTED and isinstance(ours, Overloaded) and ours.retry_after_s > 0


def rate(arrivals: list[tuple[int, float]]) -> float:
    """Frames a second from the first chunk to the last."""
    if len(arrivals) < 2:
        return 0.0
    return 4 * (arrivals[-1][0] - arrivals[0][0]) / (arrivals[-1][1] - arrivals[0][1])


def added(visitor: Visitor, arrivals: list[tuple[int, float]], decoded: dict[tuple[str, str], Entry]) -> list[float]:
    """Seconds between the end of each chunk's decoding and its arrival."""
    timeline, world = spec_of(MODEL).timeline(ChainMode.T_B), visitor.world.removeprefix("worlds/")
    late = []
    for index, moment in arrivals:
        segment, latent = timeline.locate(index)
        if (entry := decoded.get((world, f"decode-{segment}-{latent}"))) is not None:
            late.append(moment - entry.end)
    return late


if __name__ == "__main__":
    raise SystemExit(main())
