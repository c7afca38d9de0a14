"""A rehearsal goes through every task of a worker in the shapes that worlds have, and leaves no trace in what follows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from services.common.rehearsal import ROUNDS, rehearse_decoder, rehearse_planner, rehearse_populator
from teleworld.generation.decoder import Decoder
from teleworld.generation.model import Model, load_model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.world.errors import StateLost
from teleworld.world.timeline import ChainMode
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model("nano", write_tiny_model(tmp_path_factory.mktemp("models")))


def counted(core: Any, *methods: str) -> list[tuple[str, Any]]:
    """Notes each call of `methods` of a core, and passes it on."""
    calls: list[tuple[str, Any]] = []
    for name in methods:
        real = getattr(core, name)

        def noted(request: Any, name: str = name, real: Any = real) -> Any:
            calls.append((name, request))
            return real(request)

        setattr(core, name, noted)
    return calls


def test_a_planner_rehearses_all_it_does_with_the_most_key_frames(model: Model) -> None:
    core = Planner(model)
    calls = counted(core, "embed", "encode", "plan", "bridge")
    rehearse_planner(core)
    assert Counter(name for name, _ in calls) == {"embed": 1, "encode": ROUNDS, "plan": ROUNDS, "bridge": ROUNDS}
    widest = model.spec.timeline(ChainMode.T_C).key_frames
    assert all(len(request.keys) == len(widest) for name, request in calls if name == "bridge")


def test_a_populator_rehearses_both_halves(model: Model) -> None:
    core = Populator(model)
    calls = counted(core, "populate")
    rehearse_populator(core)
    assert [request.group for _, request in calls] == [2, 3] * ROUNDS


def test_a_decoder_rehearses_and_continues_nothing_of_it(model: Model) -> None:
    core = Decoder(model)
    calls = counted(core, "decode")
    rehearse_decoder(core)
    (_, request), *_ = calls
    elsewhere = type(request.context)("w", 1, 0, "decode", 0, 0, model.digest)
    going_on = type(request)(elsewhere, 1, 3, request.latents[1:], request.previous, request.guidance)
    with pytest.raises(StateLost):
        core.decode(going_on)
