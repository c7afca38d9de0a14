"""A machine that runs out: of memory in a worker, of disk under a client, and of a clock that can be trusted."""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

import psutil
import pytest

from teleworld.client import WorldClient
from teleworld.rpc.admission import Admission
from teleworld.rpc.compute import Compute
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import Unavailable
from tests.faults.fleet import Fleet
from tests.faults.walkers import JOURNEY, Journey, Walked, check, picture, walk
from tests.services.processes import ROOT

LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Python whose files may not grow beyond its first argument. Set from outside it would be after a fork, which gRPC's threads in
this process do not bear."""

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_a_clock_that_jumps_moves_nothing(fleet: Fleet, references: dict[Journey, Walked], clock: Path) -> None:
    walked = Walked()
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        for count, wrong in ((30, "86400"), (60, "-86400"), (90, "3e7")):
            await walked.reach(count)
            clock.write_text(wrong)
    async with WorldClient(fleet.target()) as client:
        late = await client.create_world(picture(), seed=1)
        await client.delete_world(late.name)
    clock.write_text("0")
    check(walked, JOURNEY, references[JOURNEY])
    assert walked.attachments == 1
    ahead = late.created.timestamp() - psutil.Process().create_time()
    assert ahead > 2e7, "the services did not see the wrong clock"


async def test_a_worker_without_memory_refuses_or_dies_and_another_one_does_its_tasks(
    fleet: Fleet, references: dict[Journey, Walked]
) -> None:
    walked = Walked()
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        for count, pool in enumerate(Pool, start=1):
            await walked.reach(24 * count)
            member = fleet.running(pool.value)[0]
            process = psutil.Process(member.pid)
            process.rlimit(resource.RLIMIT_AS, (process.memory_info().vms, resource.RLIM_INFINITY))
    check(walked, JOURNEY, references[JOURNEY])
    for pool in Pool:
        member = fleet.members[pool.value][0]
        await member.kill()
        await member.start()


@pytest.mark.parametrize(
    "error, told",
    [
        (MemoryError(), Unavailable),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), Unavailable),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"), Unavailable),
        (RuntimeError("shapes do not fit"), RuntimeError),
    ],
)
async def test_only_a_task_for_which_memory_was_wanting_is_to_be_tried_elsewhere(
    error: Exception, told: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    admission, compute = Admission(1, 1), Compute("test-compute")
    admission.open()
    with pytest.raises(told) as caught:
        await compute.run(admission.reserve(), fail)
    assert error in (caught.value, caught.value.__cause__)
    compute.close()


async def test_a_full_disk_under_a_video_leaves_no_half_of_it(fleet: Fleet, tmp_path: Path) -> None:
    """The client says in a line what is wrong; the mesh does not notice."""
    (tmp_path / "start.png").write_bytes(picture())
    out = tmp_path / "walk.mp4"
    command = ["-m", "teleworld.cli.main", "generate", "--gateway", fleet.target()]
    command += ["--model", "emulated-tiny", "--image", str(tmp_path / "start.png"), "--keys", "W*3s", "--out", str(out)]

    async def generate(room: int) -> tuple[int, str]:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LIMITED, str(room), *command, cwd=ROOT, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode is not None
        return child.returncode, said.decode()

    status, said = await generate(2048)
    assert status == 2, said
    assert "File too large" in said
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["start.png"]
    status, said = await generate(resource.RLIM_INFINITY)
    assert status == 0, said
    assert out.stat().st_size > 2048
    async with WorldClient(fleet.target()) as client:
        for world in [world async for world in client.list_worlds()]:
            await client.delete_world(world.name)
