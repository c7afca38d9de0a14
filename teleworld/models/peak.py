"""How much memory a computation holds at its worst, found by running it on the `meta` device, where nothing is computed.

Every operation announces the tensors that it makes; a storage counts from then until nothing refers to it. So the figure is
the code's own, not a formula beside it. What kernels allocate for themselves (workspaces, fragmentation) is not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of the tensors made under it. `peak`: the most that lived at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held = 0
        self._living: dict[StorageWeakRef, int] = {}
        self._known: set[int] = set()

    def spare(self, tensors: list[Tensor]) -> None:
        """Leave out tensors that exist before the computation, such as weights."""
        self._known |= {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in tensors}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata not in self._known and reference not in self._living:
                    self._living[reference] = storage.nbytes()
                    self._held += storage.nbytes()
        # What has died since is looked for only where it matters: when this might be the new peak.
        if self._held > self.peak:
            self._living = {reference: size for reference, size in self._living.items() if not reference.expired()}
            self._held = sum(self._living.values())
            self.peak = max(self.peak, self._held)
        return result


class _FusedAttention(TorchFunctionMode):
    """Attention as the fused kernels of a GPU do it: no score matrix is ever held. On `meta` torch would decompose it."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


def peak_bytes(module: torch.nn.Module, computation: Callable[[], object]) -> int:
    """The peak of `computation`, which runs `module` on the `meta` device; weights are not counted, its inputs are."""
    meter = PeakMeter()
    meter.spare([*module.parameters(), *module.buffers()])
    with torch.no_grad(), _FusedAttention(), meter:
        computation()
    return meter.peak
