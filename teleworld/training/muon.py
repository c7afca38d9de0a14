"""Muon for matrices and convolutions, AdamW for everything else, behind one learning rate.

Muon steps along the orthogonalised momentum, so that every direction of a weight matrix learns at the same pace; small
networks need far fewer samples that way. Its step is scaled to the size that AdamW's would have, hence the one rate.
The orthogonalisation runs in float32: on CPUs without bfloat16 arithmetic the usual half precision is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients of the quintic iteration that drives all singular values to about one (Jordan et al., 2024).
_QUINTIC = (3.4445, -4.7750, 2.0315)
# Root mean square of an AdamW step in units of the learning rate, which Muon's step is scaled to (Liu et al., 2025).
_ADAM_RMS = 0.2


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix [M, N] of a matrix, roughly: singular values end between 0.7 and 1.2."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """See the module's text.

    Parameters with two dimensions or more, none of them smaller than `narrowest` once a convolution's kernel is folded
    into its inputs, are Muon's. Weight decay is decoupled, and applied to Muon's parameters alone.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        narrowest: int = 8,
    ) -> None:
        wide: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for parameter in parameters:
            is_wide = parameter.dim() >= 2 and min(parameter.shape[0], parameter[0].numel()) >= narrowest
            (wide if is_wide else rest).append(parameter)
        groups = [
            {"params": wide, "muon": True, "momentum": momentum, "weight_decay": weight_decay},
            {"params": rest, "muon": False, "betas": betas, "eps": 1e-8},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on the gradients at hand."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, parameter.grad, group)
        return loss

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        velocity: Tensor = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(velocity, group["momentum"]).reshape(len(parameter), -1)
        size = _ADAM_RMS * max(ahead.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalise(ahead).view(parameter.shape), alpha=-group["lr"] * size)

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        first, second = group["betas"]
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first ** state["step"])
        square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second ** state["step"])
        parameter.addcdiv_(mean, square.sqrt_().add_(group["eps"]), value=-group["lr"])
