"""How layers start that should add nothing until they have learned to."""

from __future__ import annotations

from torch import nn


def start_at_zero(layer: nn.Linear | nn.Conv2d) -> None:
    """Zero the weight and the bias of `layer`, so that it answers 0 whatever it is given."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
