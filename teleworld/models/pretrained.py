"""Public Wan2.1 checkpoints into the modules here: Wan2.1's own files, diffusers', Self-Forcing's and MMPL's.

They hold the same tensors under different names. What a file is, is read from its names; where that is not certain, or
a single tensor does not fit, the load fails and says why.
"""

from __future__ import annotations

import os

from torch import nn

from teleworld.models.checkpoint import load_into, load_safetensors, strip_prefixes
from teleworld.models.naming import convert


def load_wan(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    branch: str | None = None,
    expected_sha256: str | None = None,
) -> dict[str, str]:
    """Fill a module that has Wan's names (transformer or VAE) from a safetensors checkpoint; return its metadata.

    `branch` picks one network of a file that holds several ("generator_ema", "generator", "critic"). To load a large
    model without holding it twice, build the module on the `meta` device.
    Raises CheckpointError, and leaves the module as it was, unless every tensor of the file has its place.
    """
    tensors, metadata = load_safetensors(path, expected_sha256=expected_sha256)
    renamed = convert(strip_prefixes(tensors, branch=branch), "wan")
    load_into(module, renamed, strict=True, source=str(path))
    return metadata
