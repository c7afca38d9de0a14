"""The one seam for attention kernels: flash-attn where it is installed and the tensors allow it, torch's SDPA otherwise.

The flash-attn path needs CUDA and half precision; it was not run on the hardware that this project is developed on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor
from torch.nn import functional as F


@cache
def _flash() -> Any | None:
    """flash-attn's function, or None where the package is missing. Imported on first use: it is an optional extra."""
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        return None
    return flash_attn_func


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask: q [B, Lq, heads, D], k and v [B, Lk, heads, D] -> [B, Lq, heads, D]."""
    if q.is_cuda and q.element_size() == 2 and (flash := _flash()) is not None:
        return flash(q, k, v)
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)
