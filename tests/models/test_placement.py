"""Where networks compute: 8-bit weights keep their scale, and what cannot be had is refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from teleworld.models.dit import DiT
from teleworld.models.float8 import FLOAT8, Float8Linear, quantise_linears
from teleworld.models.peak import peak_bytes
from teleworld.models.placement import Placement, Precision
from teleworld.world.errors import InvalidInput
from tests.wan_model import DIT


def test_a_row_of_small_weights_does_not_drown_in_one_of_large_ones():
    torch.manual_seed(0)
    linear = nn.Linear(64, 4)
    with torch.no_grad():
        linear.weight *= torch.tensor([1e-4, 1.0, 1e3, 0.0])[:, None]
    small = Float8Linear(linear)
    x = torch.randn(5, 3, 64)
    expected, found = linear(x), small(x)
    assert small.weight.dtype == FLOAT8 and small.weight.element_size() == 1
    for row in range(3):
        difference = (found - expected)[..., row].norm() / (expected[..., row] - linear.bias[row]).norm()
        assert difference < 0.05, f"row {row}"
    assert torch.equal(found[..., 3], expected[..., 3]), "a row of zeros stays one"


def test_it_computes_in_the_dtype_of_its_input():
    small = Float8Linear(nn.Linear(16, 16).bfloat16())
    assert small(torch.randn(2, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_the_linear_layers_of_blocks_shrink_and_nothing_else_does():
    dit = DiT(DIT).bfloat16()
    before = dit.state_dict()
    quantise_linears(dit)
    after = dit.state_dict()
    eighth = {name for name, tensor in after.items() if tensor.dtype == FLOAT8}
    assert eighth == {
        name
        for name, tensor in before.items()
        if name.startswith("blocks.") and tensor.dim() == 2 and name.endswith(".weight")
    }
    assert all(after[name].dtype == torch.bfloat16 for name in before.keys() - eighth)
    size = lambda tensors: sum(tensor.numel() * tensor.element_size() for tensor in tensors)  # noqa: E731
    small, rows = size(after[name] for name in eighth), size(t for name, t in after.items() if name.endswith(".scale"))
    assert small + rows < 0.55 * size(before[name] for name in eighth)


def test_what_cannot_be_had_is_refused():
    with pytest.raises(InvalidInput, match="device: torch knows no device 'abacus'"):
        Placement("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInput, match="device: cuda: no CUDA device"):
            Placement("cuda")


def test_tensors_are_moved_as_the_arithmetic_wants_them():
    placement = Placement(precision=Precision.FLOAT8)
    assert placement.tensor(torch.zeros(2)).dtype == torch.bfloat16
    assert placement.tensor(torch.zeros(2, dtype=torch.int64)).dtype == torch.int64
    same = torch.zeros(2)
    assert Placement().tensor(same) is same


def test_only_heavy_networks_are_quantised():
    assert not any(
        isinstance(layer, Float8Linear) for layer in Placement(precision=Precision.FLOAT8).network(DiT(DIT)).modules()
    )


def test_the_peak_is_what_lived_at_once():
    layer = nn.Linear(256, 256, bias=False, device="meta")
    x = torch.empty(1024, 256, device="meta")
    size = 1024 * 256 * 4

    def chained() -> torch.Tensor:
        y = layer(x)
        y = y + 1
        return y * 2

    assert peak_bytes(layer, lambda: layer(x)) == size
    assert peak_bytes(layer, chained) == 2 * size, "an operand and its result, never all three"
    assert peak_bytes(layer, lambda: [layer(x) for _ in range(3)]) == 3 * size
    query = torch.empty(1, 2, 512, 8, device="meta")
    attention = lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query)  # noqa: E731
    assert peak_bytes(layer, attention) == query.numel() * 4, "no score matrix is held"
