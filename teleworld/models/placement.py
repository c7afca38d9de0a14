"""Where and how networks compute: device, precision, compilation. The one seam for what only a GPU makes worthwhile.

On the CPU everything runs in float32 by default, and the tests hold it to the bit. The CUDA branches here (pinned transfers,
`torch.compile` with CUDA graphs) are small and were not run on the hardware that this project is developed on; float8
weights and bfloat16 are tested on the CPU. docs/gpu-paths.md lists what was run where.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import torch
from torch import Tensor, nn

from teleworld.models.float8 import quantise_linears
from teleworld.world.errors import InvalidInput

Module = TypeVar("Module", bound=nn.Module)


class Precision(Enum):
    """Of weights and arithmetic. FLOAT8 keeps the large weights in 8 bits and computes in bfloat16."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT8 = "float8"


@dataclass(frozen=True)
class Placement:
    """device: as torch names it. compile: `torch.compile` the blocks of the transformer, with CUDA graphs on a GPU."""

    device: str = "cpu"
    precision: Precision = Precision.FLOAT32
    compile: bool = False

    def __post_init__(self) -> None:
        try:
            kind = torch.device(self.device).type
        except RuntimeError as error:
            raise InvalidInput("device", f"torch knows no device {self.device!r}") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise InvalidInput("device", f"{self.device}: no CUDA device can be used here")

    @property
    def dtype(self) -> torch.dtype:
        """What the arithmetic runs in."""
        return torch.float32 if self.precision is Precision.FLOAT32 else torch.bfloat16

    def tensor(self, tensor: Tensor) -> Tensor:
        """A tensor moved to the device, floats in the dtype of the arithmetic; to a GPU through pinned memory."""
        dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
        if torch.device(self.device).type == "cuda" and tensor.device.type == "cpu":
            return tensor.to(dtype).pin_memory().to(self.device, non_blocking=True)
        return tensor.to(device=self.device, dtype=dtype)

    def network(self, module: Module, *, heavy: bool = False) -> Module:
        """A loaded network, placed. `heavy`: one whose linear layers are worth 8 bits and whose blocks are worth compiling."""
        module = module.to(device=self.device, dtype=self.dtype)
        if heavy and self.precision is Precision.FLOAT8:
            quantise_linears(module)
        if heavy and self.compile:
            mode = "reduce-overhead" if torch.device(self.device).type == "cuda" else "default"
            for block in getattr(module, "blocks", ()):
                block.compile(mode=mode)
        return module
