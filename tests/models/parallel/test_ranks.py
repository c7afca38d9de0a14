"""A planner and a populator of two ranks each, as real processes: what rank 0 answers is what one process computes, the
ranks end together, and a task that loses a rank is answered so that it is done elsewhere."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from teleworld.generation.model import Model, load_model, save_network
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.generation.sampler import Sampling
from teleworld.models.dit import NANO, DiT
from teleworld.rpc.workers import PlannerClient, PopulatorClient
from teleworld.world.errors import Unavailable
from teleworld.world.spec import NANO as WORLD
from teleworld.world.timeline import ChainMode, Group
from teleworld.world.work import Guidance, PlanRequest, PopulateRequest, Prompt, TaskContext
from tests.services.processes import Process, process
from tests.tiny_model import write_tiny_model
from tests.triton.ports import free_ports

SECONDS = 60.0
TIMELINE = WORLD.timeline(ChainMode.T_B)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny model with a transformer whose sequences can be divided."""
    torch.set_num_threads(1)
    root = write_tiny_model(tmp_path_factory.mktemp("models"))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        dit = DiT(replace(NANO, dim=48, ffn=64, heads=2, layers=2, mixing=False))
        torch.nn.init.normal_(dit.head.head.weight, std=0.1)
    save_network(root / "nano", "dit", dit, sampling=Sampling(steps=2))
    return load_model("nano", root)


def guidance(indices: tuple[int, ...]) -> Guidance:
    noise = np.random.default_rng(3)
    count, (channels, height, width) = len(indices), WORLD.latent_shape
    latents = noise.standard_normal((count, channels, height, width)).astype(np.float32)
    pixels = np.zeros((4 * count, 8 * height, 8 * width, 3), np.uint8)
    return Guidance(indices, pixels, pixels[..., 0], latents=latents, coverage=np.ones_like(latents[:, 0]))


def plan_request(model: Model) -> PlanRequest:
    noise = np.random.default_rng(4)
    prompt = Prompt("a corridor", noise.standard_normal((5, 384)).astype(np.float32))
    prefix = noise.standard_normal(WORLD.latent_shape).astype(np.float32)
    context = TaskContext("worlds/a", 1, 0, "P", 0, 9, model.digest)
    return PlanRequest(context, TIMELINE, prefix, guidance(TIMELINE.members(Group.PLAN)), prompt)


async def start(stack: AsyncExitStack, service: str, model: Model) -> list[Process]:
    """Two ranks of a service."""
    (port,) = free_ports(1)
    meeting = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    root: Path = model.folder.path.parent
    started = [
        await stack.enter_async_context(process(f"services.{service}", checkpoint=root, RANK=rank, **meeting))
        for rank in range(2)
    ]
    await started[0].heard("serving")
    return started


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return float(np.abs(found - expected).max()) <= 2e-5 * float(np.abs(expected).max())


async def test_two_ranks_plan_what_one_plans_and_end_together(model: Model) -> None:
    asked = plan_request(model)
    expected = Planner(model).plan(asked)
    async with AsyncExitStack() as stack:
        planners = await start(stack, "planner", model)
        plans = await stack.enter_async_context(PlannerClient(planners[0].address))
        for _ in range(2):
            assert close((await plans.plan(asked, SECONDS)).latents, expected.latents)
        assert all(close(each.latents, expected.latents) for each in await plans.plan_many([asked] * 2, SECONDS))
        for one in planners:
            one.child.terminate()
        assert [await one.ended() for one in planners] == [0, 0]


async def test_a_lost_rank_makes_the_task_go_elsewhere_and_ends_the_worker(model: Model) -> None:
    asked = plan_request(model)
    clean = np.stack([asked.prefix] * 3)
    half = PopulateRequest(asked.context, TIMELINE, Group.FIRST_HALF, clean, guidance((3,)), asked.prompt)
    async with AsyncExitStack() as stack:
        leader, follower = await start(stack, "populator", model)
        fills = await stack.enter_async_context(PopulatorClient(leader.address))
        assert close((await fills.populate(half, SECONDS)).latents, Populator(model).populate(half).latents)
        follower.child.kill()
        await follower.child.wait()
        with pytest.raises(Unavailable):
            await fills.populate(half, SECONDS)
        await leader.ended()
