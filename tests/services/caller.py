"""A process that calls a planner from within a span of its own: `python -m tests.services.caller ADDRESS`."""

from __future__ import annotations

import asyncio
import sys

from opentelemetry import trace

from teleworld import telemetry
from teleworld.rpc.server import announce
from teleworld.rpc.workers import PlannerClient
from tests.rpc import samples


async def main(address: str) -> None:
    async with PlannerClient(address) as client:
        with trace.get_tracer("caller").start_as_current_span("segment"):
            await client.encode(samples.ENCODE, 10)
    announce("called")


if __name__ == "__main__":
    watching = telemetry.start("caller")
    asyncio.run(main(sys.argv[1]))
    raise SystemExit(0 if watching.shutdown() else 1)
