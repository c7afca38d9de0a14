"""Four worlds walk in real time while one service after the other is killed, frozen, drained, cut off or restarted.

    python benchmarks/chaos.py --minutes 10 --json
    python benchmarks/chaos.py --minutes 2 --model nano --json

A mesh of real processes with two replicas of every service, a Redis that syncs each write, and a proxy before each of them.
First the same worlds, with the same scheduled keys, walk undisturbed on the same mesh: theirs are the latents and the videos
to compare with. Then a fault strikes every 5 to 10 seconds, drawn with its target from `--seed`. The next one waits until
the service that was struck is whole again, so that one replica is always left.

faults: that struck. frames: that arrived. lost, repeated, reordered: frames. latents_changed: chunks whose latent or video
is not that of the undisturbed walk. stall_ms_p99: of the longest halt between a fault and the next, one for each world and
fault, of a player without a buffer of its own, who starts with the first chunk and shows each when it is due or has come.
leaks: processes, Redis keys of deleted worlds, shared memory segments and tasks of this process that are left at the end, and
services that did not end well. Of a model that computes there is one world. The last line is
{"faults", "frames", "lost", "repeated", "reordered", "latents_changed", "stall_ms_p99", "leaks"}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from teleworld.cli.report import percentile
from teleworld.client import Pace
from teleworld.scheduling.tasks import Pool
from teleworld.world.spec import is_emulated, spec_of
from teleworld.world.timeline import ChainMode
from tests.faults.fleet import GATEWAY, Fleet, Member
from tests.faults.walkers import Journey, Walked, walk

POOLS = tuple(pool.value for pool in Pool)


@dataclass(frozen=True)
class Fault:
    """What struck whom, and when (`time.monotonic`)."""

    kind: str
    target: str
    at: float


class Chaos:
    """Strikes a fleet. Each method is a fault; it returns when the fleet is whole again."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.faults: list[Fault] = []
        self._random = random.Random(seed)
        self._kinds: list[tuple[str, Callable[[str], Awaitable[None]]]] = [
            ("kill", self._kill),
            ("drain", self._drain),
            ("freeze", self._freeze),
            ("cut", self._cut),
            ("silence", self._silence),
            ("slow", self._slow),
            ("redis killed", self._redis_killed),
            ("redis stopped", self._redis_stopped),
            ("redis frozen", self._redis_frozen),
        ]

    async def run(self, until: float) -> None:
        """A fault every 5 to 10 seconds, until the monotonic clock says `until`."""
        while True:
            await asyncio.sleep(self._random.uniform(5.0, 10.0))
            if time.monotonic() >= until:
                return
            kind, strike = self._random.choice(self._kinds)
            target = self._random.choice((*POOLS, GATEWAY)) + f"-{self._random.randint(1, 2)}"
            self.faults.append(Fault(kind, "redis" if kind.startswith("redis") else target, time.monotonic()))
            print(f"{len(self.faults)}: {kind} {self.faults[-1].target}", file=sys.stderr, flush=True)
            await strike(target)

    def _member(self, target: str) -> Member:
        return self.fleet.member(target)

    async def _kill(self, target: str) -> None:
        await self._member(target).kill()
        await self._member(target).start()

    async def _drain(self, target: str) -> None:
        if status := await self._member(target).drain():
            self.fleet.badly_ended.append(f"{target} ended with {status}")
        await self._member(target).start()

    async def _freeze(self, target: str) -> None:
        """A gateway for one second: nobody but its client could tell. A worker for as long as its call would last, or less."""
        await self._paused(self._member(target).pid, 1.0 if target.startswith(GATEWAY) else self._random.uniform(1, 8))

    async def _cut(self, target: str) -> None:
        self.fleet.proxies[target].cut(after=self._random.randint(0, 4000))

    async def _silence(self, target: str) -> None:
        proxy = self.fleet.proxies[target]
        proxy.silent = True
        await asyncio.sleep(1.0 if target.startswith(GATEWAY) else self._random.uniform(1, 5))
        proxy.silent = False

    async def _slow(self, target: str) -> None:
        proxy = self.fleet.proxies[target]
        proxy.delay = 0.02
        await asyncio.sleep(3.0)
        proxy.delay = 0.0

    async def _redis_killed(self, target: str) -> None:
        await self.fleet.redis.kill()
        await self.fleet.redis.start()

    async def _redis_stopped(self, target: str) -> None:
        await self.fleet.redis.stop()
        await self.fleet.redis.start()

    async def _redis_frozen(self, target: str) -> None:
        await self._paused(await self.fleet.redis.pid(), 1.0)

    async def _paused(self, pid: int, seconds: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(pid, signal.SIGCONT)


def main() -> int:
    parser = argparse.ArgumentParser(description="Worlds under a random fault every few seconds.")
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults (default: 10)")
    parser.add_argument("--model", default="emulated-tiny")
    parser.add_argument("--worlds", type=int, help="(default: 4, or 1 for a model that computes)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default: 1)")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    print(json.dumps(result))
    return 1 if any(result[name] for name in ("lost", "repeated", "reordered", "latents_changed", "leaks")) else 0


async def run(options: argparse.Namespace) -> dict[str, float]:
    """The undisturbed walks, the disturbed ones, and what distinguishes them."""
    spec, seconds = spec_of(options.model), 60 * options.minutes
    worlds = options.worlds or (4 if is_emulated(spec.name) else 1)
    last = round(seconds * spec.fps / 4)
    chains = list(ChainMode)
    journeys = [Journey(seed, last, chains[seed % len(chains)]) for seed in range(worlds)]
    with tempfile.TemporaryDirectory(prefix="teleworld-chaos-") as folder:
        async with Fleet(Path(folder), model=options.model, proxied=True, gateway={"utilisation": "0"}) as fleet:
            target = f"ipv4:{fleet.target(0)},{fleet.target(1)}"
            calm = await asyncio.gather(*(walk(target, journey, pace=Pace.MAX) for journey in journeys))
            print(f"{sum(len(walked.chunks) for walked in calm)} chunks undisturbed", file=sys.stderr, flush=True)
            walked = [Walked() for _ in journeys]
            chaos = Chaos(fleet, options.seed)
            walks = [
                asyncio.create_task(
                    walk(target, journey, came, pace=Pace.REALTIME, reanchor=bool(journey.seed // 2 % 2))
                )
                for journey, came in zip(journeys, walked, strict=True)
            ]
            striking = asyncio.create_task(chaos.run(time.monotonic() + seconds))
            outcomes = await asyncio.gather(*walks, return_exceptions=True)
            failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            await striking
            keys = [key for key in await fleet.redis.keys() if "{" in key]
        tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        leaks = fleet.leaks() + keys + tasks
    for failure in [*failures, *leaks]:
        print(f"{failure!r}", file=sys.stderr)
    halts = [halt for came in walked for halt in stalls(came, chaos.faults, spec.fps)]
    if not options.json:
        print(f"faults: {dict(Counter(fault.kind for fault in chaos.faults))}")
        print("longest halts in ms: " + ", ".join(f"{1e3 * halt:.0f}" for halt in sorted(halts)[-8:]))
        print("longest times between two chunks in ms: " + ", ".join(f"{1e3 * max(gaps(came)):.0f}" for came in walked))
        print(f"attachments: {[came.attachments for came in walked]}")
    return {
        "faults": len(chaos.faults),
        **compared(walked, calm),
        "stall_ms_p99": round(1e3 * (percentile(halts, 0.99) or 0.0), 1),
        "leaks": len(leaks),
    }


def compared(walked: list[Walked], calm: list[Walked]) -> dict[str, int]:
    """Counts over all worlds: frames but for `latents_changed`, which are chunks."""
    count: Counter[str] = Counter(frames=0, lost=0, repeated=0, reordered=0, latents_changed=0)
    for came, known in zip(walked, calm, strict=True):
        frames = {chunk.index: chunk.frames for chunk in known.chunks}
        reference, seen, newest = {entry[0]: entry for entry in known.identity()}, set[int](), -1
        for entry in came.identity():
            index = entry[0]
            count["frames"] += frames[index]
            count["repeated"] += frames[index] if index in seen else 0
            count["reordered"] += frames[index] if index < newest and index not in seen else 0
            count["latents_changed"] += entry != reference[index]
            seen.add(index)
            newest = max(newest, index)
        count["lost"] += sum(frames[index] for index in frames.keys() - seen)
    return dict(count)


def gaps(walked: Walked) -> list[float]:
    """Seconds from each chunk to the next."""
    return [after - before for before, after in zip(walked.arrivals, walked.arrivals[1:], strict=False)] or [0.0]


def stalls(walked: Walked, faults: list[Fault], fps: float) -> list[float]:
    """The longest halt of a player in seconds, for each fault."""
    halts, shown = list[tuple[float, float]](), walked.arrivals[0] if walked.arrivals else 0.0
    for chunk, arrival in zip(walked.chunks, walked.arrivals, strict=True):
        halts.append((arrival, max(arrival - shown, 0.0)))
        shown = max(shown, arrival) + chunk.frames / fps
    ends = [fault.at for fault in faults[1:]] + [float("inf")]
    return [
        max((halt for at, halt in halts if fault.at <= at < end), default=0.0)
        for fault, end in zip(faults, ends, strict=True)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
