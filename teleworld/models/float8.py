"""Linear layers that keep their weights in 8 bits (float8 e4m3) and compute in the dtype of their input.

Halves the weights of a bfloat16 model: 14B from 28.6 GB to 14.5. Each output row has a scale of its own, so that a row of
small weights does not drown in one of large ones. Weights are dequantised when they are used: memory is saved, not
arithmetic. A layer whose input is not [..., features] of a matrix product, such as a convolution, keeps its dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FLOAT8).max


class Float8Linear(nn.Module):
    """`nn.Linear` with weight float8 [out, in] and scale float32 [out, 1]; the bias keeps its dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
        self.register_buffer("weight", (weight / scale).to(FLOAT8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self.weight: Tensor
        self.scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, (self.weight.to(torch.float32) * self.scale).to(x.dtype), self.bias)


def quantise_linears(module: nn.Module) -> None:
    """Replace each linear layer inside the blocks of `module`, in place; what is outside of them is small and sensitive."""
    blocks = getattr(module, "blocks", ())
    for parent in [inner for block in blocks for inner in block.modules()]:
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Float8Linear(child))
