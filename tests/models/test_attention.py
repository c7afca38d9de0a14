"""The seam for attention kernels."""

from __future__ import annotations

import subprocess
import sys

import torch

from teleworld.models.attention import attend


def test_it_is_softmax_attention_over_heads_of_their_own():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, length, 3, 8, dtype=torch.float64) for length in (5, 7, 7))
    for batch in range(2):
        for head in range(3):
            weight = torch.softmax(q[batch, :, head] @ k[batch, :, head].T / 8**0.5, dim=-1)
            torch.testing.assert_close(attend(q, k, v)[batch, :, head], weight @ v[batch, :, head])


def test_optional_kernels_are_imported_on_first_use_alone():
    code = "import sys, teleworld.models.attention as a; sys.exit('flash_attn' in sys.modules or a._flash.cache_info().misses)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
