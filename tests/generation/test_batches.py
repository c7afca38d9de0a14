"""Several worlds in one pass of the transformer: each gets its own latents, whoever is beside it.

That a batch also has the very bits of single calls depends on the kernels of the machine, so that is what workers try before
they announce it. Here it is asked for closeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.common.rehearsal import Stage
from teleworld.generation.model import Model, load_model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.models.dit import DiTConfig
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import learn
from teleworld.world.timeline import ChainMode, Group
from teleworld.world.work import EmbedRequest, PlanRequest, PopulateRequest
from tests.tiny_model import write_tiny_model
from tests.wan_model import DIT, write_wan_model

CLOSE = 1e-4


@pytest.fixture(scope="module", params=["nano", "wan", "guided", "pictured"])
def networks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Of each family, and each way of sampling and conditioning that changes what a sample brings along."""
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "nano":
        return load_model("nano", write_tiny_model(root))
    guided = {"steps": 2, "shift": 5.0, "method": "unipc", "guidance_scale": 5.0, "negative_prompt": "grey"}
    dit: DiTConfig = replace(DIT, extra_channels=20) if request.param == "pictured" else DIT
    write_wan_model(root / request.param, dit=dit, sampling=guided if request.param == "guided" else None)
    model = load_model(request.param, root)
    learn(model.spec)
    return model


def plans(model: Model, count: int) -> list[PlanRequest]:
    """Of worlds with seeds, pictures and prompts of different lengths."""
    planner, line = Planner(model), model.spec.timeline(ChainMode.T_C)
    requests = []
    for seed in range(count):
        stage = Stage(model, seed)
        prompt = planner.embed(EmbedRequest(model.digest, " ".join(["hall"] * (1 + 2 * seed))))
        guidance = stage.guidance(line.members(Group.PLAN))
        requests.append(PlanRequest(replace(stage.context, segment=seed), line, stage.latents(1)[0], guidance, prompt))
    return requests


def halves(model: Model, count: int) -> list[PopulateRequest]:
    line, group = model.spec.timeline(ChainMode.T_C), Group.SECOND_HALF
    return [
        PopulateRequest(
            plan.context,
            line,
            group,
            Stage(model, 7 + seed).latents(len(line.visible(group))),
            Stage(model, seed).guidance(line.members(group)),
            plan.prompt,
        )
        for seed, plan in enumerate(plans(model, count))
    ]


def apart(together: Sequence[Any], alone: Sequence[Any]) -> float:
    """The largest difference of any value, every answer against the one that its world gets alone."""
    assert [one.indices for one in together] == [one.indices for one in alone]
    return max(float(np.abs(a.latents - b.latents).max()) for a, b in zip(together, alone, strict=True))


def test_each_world_gets_its_own_plan_and_its_own_latents(networks: Model) -> None:
    planner, populator = Planner(networks), Populator(networks)
    asked, filled = plans(networks, 3), halves(networks, 3)
    alone = [planner.plan(request) for request in asked]
    assert apart(planner.plan_many(asked), alone) < CLOSE
    assert apart(planner.plan_many(asked[::-1]), alone[::-1]) < CLOSE, "whatever its place"
    assert apart(alone[:2], alone[1:]) > 100 * CLOSE, "worlds differ, so that a mixture would be seen"
    assert apart(populator.populate_many(filled), [populator.populate(request) for request in filled]) < CLOSE


def test_a_prompt_of_another_width_is_refused_by_name(model: Model) -> None:
    first, second = plans(model, 2)
    narrow = replace(second, prompt=replace(second.prompt, embedding=second.prompt.embedding[:, :-1]))
    with pytest.raises(InvalidInput, match=r"^prompt\.embedding: "):
        Planner(model).plan_many([first, narrow])
