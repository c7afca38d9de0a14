"""The other noise levels are learnt from the truth, the answer from noise is kept, and runs resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from teleworld.models.dit import DiT
from teleworld.training.draws import Draw, Drawing, Draws
from teleworld.training.loop import Run
from teleworld.training.multistep import MultistepTraining, flow_loss, train_multistep
from tests.training.half_known import CONFIG, Reader

WEIGHTS = torch.tensor([0.5, 0.5, 1.0, 2.0])
SETTINGS = MultistepTraining(drawing=Drawing(batch=2), learning_rate=1e-3)


def network(seed: int) -> DiT:
    torch.manual_seed(seed)
    dit = DiT(CONFIG)
    torch.nn.init.normal_(dit.head.head.weight, std=0.1)
    return dit


def drawn(sigma: float) -> Draw:
    reader = Reader()
    draw = Draws(reader, SETTINGS.drawing, 6, 0, 0).next(network(0))  # type: ignore[arg-type]
    return replace(draw, sigma=torch.full_like(draw.sigma, sigma))


@pytest.mark.parametrize(("sigma", "scale"), [(0.5, 4.0), (0.01, 16.0)])
def test_below_noise_the_loss_is_of_the_velocity_to_the_truth_capped(sigma: float, scale: float) -> None:
    draw = drawn(sigma)
    predicted = torch.randn(draw.clean.shape)
    error = WEIGHTS.view(1, -1, 1, 1, 1) * (predicted - draw.clean).square()
    torch.testing.assert_close(flow_loss(draw, predicted, network(1), WEIGHTS, 16.0), scale * error.mean())


def test_from_noise_the_answer_of_the_start_costs_nothing_and_the_truth_does() -> None:
    draw, start = drawn(1.0), network(1)
    assert flow_loss(draw, draw.predict(start), start, WEIGHTS, 16.0) < 1e-9
    assert flow_loss(draw, draw.clean, start, WEIGHTS, 16.0) > 0.01
    mixed = replace(draw, sigma=torch.tensor([1.0, 0.5]))
    predicted = torch.stack([draw.predict(start)[0], draw.clean[1]])
    assert flow_loss(mixed, predicted, start, WEIGHTS, 16.0) < 1e-9


def test_a_run_learns_exports_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = network(1)
    before = {name: value.clone() for name, value in start.state_dict().items()}
    seen: list[DiT] = []
    for steps in (4, 6):
        monkeypatch.setattr(Run, "finished", property(lambda run, steps=steps: run.step >= steps))
        train_multistep(
            tmp_path / "run",
            Reader(),
            start,
            WEIGHTS,
            lambda dit: seen.append(dit) or {},
            SETTINGS,
            6,
            tmp_path / "out",
        )  # type: ignore[arg-type]
    assert (tmp_path / "out" / "dit.safetensors").is_file() and len(seen) == 2
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in seen[1].state_dict().items())
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 6
