"""Training of the transformer: the critic tells fog from texture, its gradient stays where it belongs, runs resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from teleworld.training.critic import LatentCritic, critic_loss, mean_where
from teleworld.training.dit import DiTTraining, train_dit
from teleworld.training.draws import Drawing
from teleworld.training.loop import Run
from tests.training.half_known import CONFIG, Reader

SETTINGS = DiTTraining(minutes=0.02, drawing=Drawing(batch=2, drop_guidance=0.0))


def unknown(batch: int = 2) -> Tensor:
    return torch.ones(batch, 1, 3, 4, 8)


def test_the_critic_learns_to_tell_fog_from_texture() -> None:
    torch.manual_seed(0)
    critic = LatentCritic(torch.ones(4), width=16)
    optimiser = torch.optim.AdamW(critic.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = critic_loss(critic, torch.zeros(2, 4, 3, 4, 8), torch.randn(2, 4, 3, 4, 8), unknown(), unknown())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_judgement_reaches_the_picture_and_leaves_the_critic_alone() -> None:
    critic, made = LatentCritic(torch.ones(4), width=16), torch.randn(2, 4, 3, 4, 8, requires_grad=True)
    where = unknown() * (torch.arange(8) >= 6)
    mean_where(critic.judge(made, unknown()), where).backward()
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert made.grad is not None and made.grad[..., 6:].abs().sum() > 0
    assert not made.grad[..., :3].any(), "a score three cells away has seen this cell"
    assert mean_where(torch.ones(2), torch.zeros(2)) == 0


def test_a_run_learns_exports_and_resumes(tmp_path: Path) -> None:
    def train() -> Reader:
        reader = Reader()
        evaluate = lambda dit: {"size": float(sum(p.numel() for p in dit.parameters()))}  # noqa: E731
        train_dit(
            tmp_path / "run", reader, torch.ones(4), evaluate, SETTINGS, CONFIG, 6, tmp_path / "export", every=10**6
        )  # type: ignore[arg-type]
        return reader

    tmp_path.joinpath("export").mkdir()
    assert train().draws > 1
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["size"] > 0 and (tmp_path / "export" / "dit.safetensors").exists()
    run = Run(tmp_path / "run" / "critic", LatentCritic(torch.ones(4)), learning_rate=1e-3, total_seconds=1)
    assert run.resume() and 0 < run.step <= line["step"]
    assert train().draws == 0, "the time is spent"


def test_halves_between_recorded_key_frames_are_not_judged(tmp_path: Path) -> None:
    settings = replace(SETTINGS, drawing=replace(SETTINGS.drawing, shares=(0.0, 0.5, 0.5), own_context=0.0))
    evaluate = lambda dit: {}  # noqa: E731
    train_dit(tmp_path, Reader(), torch.ones(4), evaluate, settings, CONFIG, 6, tmp_path, every=10**6)  # type: ignore[arg-type]
    run = Run(tmp_path / "critic", LatentCritic(torch.ones(4)), learning_rate=1e-3, total_seconds=1)
    assert run.resume() and run.step == 0
