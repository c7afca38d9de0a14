"""The samplers' steps beside diffusers' schedulers, each on its own latents, from the first level to the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from teleworld.evaluation.parity.table import Check, Row, compare
from teleworld.generation.solvers import SCHEDULES, Method, make_solver

STEPS = (1, 2, 5, 20, 50)
SHIFTS = (1.0, 3.0, 5.0, 8.0)


def schedulers() -> Iterator[Row]:
    """Levels and trajectories of a made-up velocity field. The bound is float32's: fifty steps add up."""
    from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    public: dict[Method, Callable[[float], Any]] = {
        Method.UNIPC: lambda shift: UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        ),
        Method.EULER: lambda shift: FlowMatchEulerDiscreteScheduler(shift=shift),
    }
    names = {Method.UNIPC: "UniPCMultistepScheduler", Method.EULER: "FlowMatchEulerDiscreteScheduler"}
    for method, make in public.items():
        for shift in SHIFTS:
            levels, trails = [], []
            for steps in STEPS:
                scheduler = make(shift)
                scheduler.set_timesteps(steps)
                levels.append((torch.tensor(SCHEDULES[method](steps, shift)), scheduler.sigmas[:-1]))
                trails.append(_trajectories(method, [float(s) for s in scheduler.sigmas[:-1]], scheduler))
            note = ", ".join(map(str, STEPS)) + " steps"
            for what, pairs in (("levels", levels), ("after each step", trails)):
                ours, theirs = (torch.cat(side) for side in zip(*pairs, strict=True))
                yield compare(
                    f"sampler {method.value}", f"{what}, shift {shift:g}", names[method], ours, theirs, note=note
                )


def _trajectories(method: Method, sigmas: list[float], scheduler: Any) -> tuple[Tensor, Tensor]:
    """The latents after each step, [steps, 2, 4, 3, 8] each."""
    generator = torch.Generator().manual_seed(11)
    weights = 0.3 * torch.randn(8, 8, generator=generator)
    velocity = lambda x, sigma: torch.tanh(x @ weights + sigma)  # noqa: E731
    ours = theirs = torch.randn(2, 4, 3, 8, generator=generator)
    solver = make_solver(method, sigmas, lambda number: torch.zeros(()))
    trails: tuple[list[Tensor], list[Tensor]] = ([], [])
    for number, (sigma, timestep) in enumerate(zip(sigmas, scheduler.timesteps, strict=True)):
        theirs = scheduler.step(velocity(theirs, sigma), timestep, theirs).prev_sample
        ours = solver.step(number, ours, ours - sigma * velocity(ours, sigma))
        trails[0].append(ours)
        trails[1].append(theirs)
    return torch.stack(trails[0]), torch.stack(trails[1])


CHECKS = (Check("samplers", schedulers),)
