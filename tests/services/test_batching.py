"""What a worker announces: the sizes of batches that change no bit, fit into a message and pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from services.common import batching
from services.common.batching import Case, largest_batch, largest_message, planner_batches, populator_batches
from services.common.families import EmulationSettings, maker_of
from services.planner.settings import PlannerSettings
from teleworld.generation.model import Model, load_model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.rpc.channels import MAX_MESSAGE_BYTES
from teleworld.scheduling.costs import table_of
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.spec import NANO, spec_of
from teleworld.world.timeline import ChainMode
from teleworld.world.work import LatentsResult
from tests.tiny_model import write_tiny_model

Answer = Callable[[float, int], float]


def asked(answer: Answer, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> tuple[Any, list[int]]:
    """A core that answers `answer(request, size of the call)` in `seconds(size)` by a clock of its own, and its calls."""
    sizes = list[int]()
    now = [0.0]
    monkeypatch.setattr(batching.time, "perf_counter", lambda: now[0])

    def ask(requests: Sequence[float]) -> list[LatentsResult]:
        sizes.append(len(requests))
        now[0] += seconds(len(requests))
        return [LatentsResult((2,), np.full((1, 1), answer(r, len(requests)), np.float32), {}) for r in requests]

    return ask, sizes


CASES = [Case("first", [1.0, 2.0, 3.0, 4.0]), Case("second", [5.0, 6.0, 7.0, 8.0])]


def cases() -> list[Case]:
    return [Case(case.name, case.requests) for case in CASES]


def test_a_batch_that_changes_no_bit_and_pays_is_announced_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, sizes = asked(lambda request, size: request, monkeypatch, lambda size: 0.1 + 0.05 * (size - 1))
    assert largest_batch(Kind.PLAN, ask, cases(), 4) == 4
    assert sizes.count(1) == 8, "each request is asked alone once"


@pytest.mark.parametrize("wrong", [2, 3, 4])
def test_one_bit_of_one_shape_ends_it(monkeypatch: pytest.MonkeyPatch, wrong: int) -> None:
    def answer(request: float, size: int) -> float:
        return np.nextafter(np.float32(request), np.float32(9)) if size == wrong and request == 6.0 else request

    ask, sizes = asked(answer, monkeypatch, lambda size: 0.1)
    assert largest_batch(Kind.PLAN, ask, cases(), 4) == wrong - 1
    assert max(sizes) == wrong, "nothing larger is worth trying"


def test_a_batch_that_takes_as_long_as_its_tasks_is_not_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, _ = asked(lambda request, size: request, monkeypatch, lambda size: 0.09 * size if size > 1 else 0.1)
    assert largest_batch(Kind.PLAN, ask, cases(), 4) == 1


def test_a_worker_does_not_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ask, sizes = asked(lambda request, size: request, monkeypatch, lambda size: 2.0)
    assert largest_batch(Kind.PLAN, ask, cases(), 4) == 2
    assert max(sizes) == 2, "twelve seconds were over"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.set_num_threads(1)
    return load_model("nano", write_tiny_model(tmp_path_factory.mktemp("models")))


def test_networks_are_tried_with_every_shape_that_may_be_batched(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever size this machine's kernels allow: all shapes were tried, and the answer is within the limit."""
    monkeypatch.setattr(batching, "PAYS", np.inf)
    core, tried = Populator(model), set[tuple[Any, ...]]()
    real = core.populate_many

    def noted(requests: Any) -> Any:
        first = requests[0]
        tried.add((first.timeline.members(first.group), first.timeline.visible(first.group)))
        return real(requests)

    monkeypatch.setattr(core, "populate_many", noted)
    sizes = populator_batches(core, 2)
    assert sizes in ({}, {"populate": 2})
    if sizes:
        timelines = [NANO.timeline(chain) for chain in (ChainMode.T_B, ChainMode.T_C)]
        groups = [(line, group) for line in timelines for group in range(2, len(line.stages) + 1)]
        assert {(line.members(group), line.visible(group)) for line, group in groups if line.members(group)} == tried
    assert planner_batches(Planner(model), 1) == {}, "one is nothing to try"


def test_an_emulated_worker_says_what_its_table_says() -> None:
    settings = PlannerSettings(model="emulated-tiny", batch=3)
    description, _ = maker_of("planner", settings, lambda settings: pytest.fail("torch")).load()
    assert EmulationSettings().devices == 1
    assert description.batches == {"plan": 3}


def test_a_batch_that_gains_nothing_by_its_table_is_not_announced() -> None:
    table, spec = table_of("emulated-18b"), spec_of("emulated-18b")
    assert table.tasks[Kind.PLAN].batch is not None
    assert batching.table_batches(table, spec, 0, Pool.PLANNER, 4) == {}
    assert batching.table_batches(table_of("emulated-tiny"), spec, 0, Pool.DECODER, 4) == {}


def test_a_batch_fits_into_a_message() -> None:
    spec = spec_of("emulated-18b")
    count = largest_message(spec, 512 * 4096 * 4, Kind.POPULATE)
    channels, rows, columns = spec.latent_shape
    line = spec.timeline(ChainMode.T_C)
    latents = len(line.visible(3)) + len(line.members(3))
    each = 4 * (latents * channels * rows * columns + 512 * 4096)
    assert count >= 1 and count * each < MAX_MESSAGE_BYTES
    assert largest_message(NANO, 0, Kind.PLAN) == 64
