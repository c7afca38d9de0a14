"""How a sampler gets from one noise level to the next, given what the network thinks the clean latents are.

x_sigma = (1 - sigma) x_0 + sigma eps. A distilled network is renoised with fresh noise (few-step, Self-Forcing); one that is
not is integrated: by Euler, or by UniPC of second order (Zhao et al. 2023, B(h) = e^h - 1, data prediction), the solver that
Wan2.1 is published with. The schedules are the published ones, so that a checkpoint sees the levels it was tuned for.

A solver carries the history of one group and is used once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from torch import Tensor

TRAINED_STEPS = 1000
# alpha = 1 - sigma must not vanish where its logarithm is taken.
_CLOSEST_TO_NOISE = 1 - 1e-6


class Method(Enum):
    """Which solver: few-step for distilled checkpoints, Euler or UniPC for the others."""

    FEW_STEP = "few_step"
    EULER = "euler"
    UNIPC = "unipc"


class Solver(Protocol):
    """One group's way from noise to clean latents."""

    def step(self, number: int, x: Tensor, clean: Tensor) -> Tensor:
        """Latents at level `number + 1`, from `x` at level `number` and the clean latents predicted there."""


def shifted(sigma: float, shift: float) -> float:
    """A noise level warped towards the noisy end: k s / (1 + (k - 1) s)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def few_step_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """`steps` levels from 1 down, even before the shift: [1000, 750, 500, 250] / 1000 for four."""
    return tuple(shifted(1 - step / steps, shift) for step in range(steps))


def euler_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """The levels of the public flow-matching Euler scheduler: even from 1 to the shifted 1/1000, then shifted again."""
    last = shifted(1 / TRAINED_STEPS, shift)
    even = [1 - step / max(steps - 1, 1) * (1 - last) for step in range(steps)]
    return tuple(shifted(sigma, shift) for sigma in even)


def unipc_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """The levels of the public UniPC scheduler with flow sigmas: even from 1 to 1/1000 exclusive, then shifted."""
    even = [1 - step / steps * (1 - 1 / TRAINED_STEPS) for step in range(steps)]
    return tuple(min(shifted(sigma, shift), _CLOSEST_TO_NOISE) for sigma in even)


SCHEDULES: dict[Method, Callable[[int, float], tuple[float, ...]]] = {
    Method.FEW_STEP: few_step_sigmas,
    Method.EULER: euler_sigmas,
    Method.UNIPC: unipc_sigmas,
}


class FewStep:
    """Renoise the prediction with fresh noise. `fresh(number)` draws it for step `number`."""

    def __init__(self, sigmas: Sequence[float], fresh: Callable[[int], Tensor]) -> None:
        self._sigmas = sigmas
        self._fresh = fresh

    def step(self, number: int, x: Tensor, clean: Tensor) -> Tensor:
        if number + 1 == len(self._sigmas):
            return clean
        after = self._sigmas[number + 1]
        return (1 - after) * clean + after * self._fresh(number + 1)


class Euler:
    """Follow the velocity (x - x_0) / sigma."""

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = (*sigmas, 0.0)

    def step(self, number: int, x: Tensor, clean: Tensor) -> Tensor:
        sigma, after = self._sigmas[number : number + 2]
        return x + (after - sigma) / sigma * (x - clean)


class UniPC:
    """UniPC-2 in data prediction: each prediction first corrects the step that led to it, then predicts the next one.

    With lambda = log(alpha / sigma), h the step in lambda and phi_1 = e^-h - 1, order one is
    x_t = sigma_t / sigma_s x_s - alpha_t phi_1 m_s. Order two adds -alpha_t phi_1 rho D with D the slope of the predictions;
    the corrector also uses the newest prediction. The first and the last predictor step are of order one.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self._sigmas = (*sigmas, 0.0)
        self._predictions: list[Tensor] = []
        self._before: Tensor | None = None
        self._order = 1

    def step(self, number: int, x: Tensor, clean: Tensor) -> Tensor:
        if self._before is not None:
            x = self._correct(number, clean)
        self._predictions = [*self._predictions[-1:], clean]
        self._before = x
        self._order = 1 if number == 0 or number + 2 == len(self._sigmas) else 2
        return self._predict(number)

    def _predict(self, number: int) -> Tensor:
        """From level `number` to the next."""
        x, newest = self._before, self._predictions[-1]
        assert x is not None
        h, phi = self._span(number, number + 1)
        after = 1 - self._sigmas[number + 1]
        x = self._sigmas[number + 1] / self._sigmas[number] * x - after * phi * newest
        if self._order == 2:
            ratio = self._log_ratio(number - 1, number) / h
            x = x - after * phi * 0.5 * (self._predictions[-2] - newest) / ratio
        return x

    def _correct(self, number: int, clean: Tensor) -> Tensor:
        """Level `number` anew, from the level before it, now that the prediction at `number` is known."""
        before, start = self._before, self._predictions[-1]
        assert before is not None
        h, phi = self._span(number - 1, number)
        alpha, slope = 1 - self._sigmas[number], clean - start
        x = self._sigmas[number] / self._sigmas[number - 1] * before - alpha * phi * start
        if self._order == 1:
            return x - alpha * phi * 0.5 * slope
        # Order two: rho solves [[1, 1], [r, 1]] rho = (b1, b2), the moments of the exponential integrator.
        ratio = self._log_ratio(number - 2, number - 1) / h
        first = (phi / -h - 1) / phi
        second = 2 * ((phi / -h - 1) / -h - 0.5) / phi
        rho = (second - first) / (ratio - 1)
        earlier = (self._predictions[-2] - start) / ratio
        return x - alpha * phi * (rho * earlier + (first - rho) * slope)

    def _span(self, start: int, end: int) -> tuple[float, float]:
        """(h, phi_1) between two levels; at sigma 0 h is infinite and phi_1 is -1."""
        h = self._log_ratio(end, start)
        return h, math.expm1(-h)

    def _log_ratio(self, one: int, other: int) -> float:
        """lambda at level `one` less lambda at level `other`."""
        return self._lambda(one) - self._lambda(other)

    def _lambda(self, number: int) -> float:
        sigma = self._sigmas[number]
        return math.inf if sigma == 0 else math.log((1 - sigma) / sigma)


def make_solver(method: Method, sigmas: Sequence[float], fresh: Callable[[int], Tensor]) -> Solver:
    """The solver of `method` for the levels `sigmas`. `fresh(number)`: noise of step `number`, for few-step."""
    match method:
        case Method.FEW_STEP:
            return FewStep(sigmas, fresh)
        case Method.EULER:
            return Euler(sigmas)
        case Method.UNIPC:
            return UniPC(sigmas)
