"""Muon with AdamW: what it does to matrices, that the rest is plain AdamW, and that a stored state continues exactly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from teleworld.training.muon import MuonAdamW, orthogonalise


@pytest.mark.parametrize("shape", [(12, 12), (10, 40), (40, 10)])
def test_singular_values_end_near_one_and_directions_stay(shape: tuple[int, int]):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5 and values.max() < 1.3
    alignment = torch.einsum("ik,ij,kj->k", left, found, right)
    torch.testing.assert_close(alignment.sort(descending=True).values, values, rtol=1e-3, atol=1e-3)


def test_vectors_and_narrow_matrices_step_as_adamw_would():
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimisers = [
        MuonAdamW(ours.parameters(), 0.1),
        torch.optim.AdamW(theirs.parameters(), 0.1, betas=(0.9, 0.99), weight_decay=0.0),
    ]
    for _ in range(3):
        x = torch.randn(5, 3)
        for net, optimiser in zip((ours, theirs), optimisers, strict=True):
            optimiser.zero_grad()
            net(x).square().sum().backward()
            optimiser.step()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("layer", [nn.Linear(16, 16), nn.Conv2d(4, 16, 3)], ids=["matrix", "convolution"])
def test_a_wide_weight_moves_equally_in_all_directions(layer: nn.Module):
    weight = layer.weight
    optimiser = MuonAdamW([weight], 0.1, weight_decay=0.0)
    before = weight.detach().clone()
    # A gradient that is a hundred times stronger along one direction than along the others.
    weight.grad = (
        torch.randn_like(weight)
        .reshape(16, -1)
        .div_(100)
        .index_add_(0, torch.tensor([0]), torch.ones(1, weight[0].numel()))
        .reshape(weight.shape)
    )
    optimiser.step()
    step = torch.linalg.svdvals((weight.detach() - before).reshape(16, -1))
    assert step.max() / step.min() < 4
    assert float((weight.detach() - before).square().mean().sqrt()) == pytest.approx(0.02, rel=0.4)


def test_a_stored_state_continues_as_if_never_stopped():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 8))
    optimiser = MuonAdamW(net.parameters(), 0.01)
    batches = torch.randn(6, 4, 8)

    def train(net: nn.Module, optimiser: MuonAdamW, part: torch.Tensor) -> None:
        for x in part:
            optimiser.zero_grad()
            (net(x) - x).square().mean().backward()
            optimiser.step()

    train(net, optimiser, batches[:3])
    other = copy.deepcopy(net)
    resumed = MuonAdamW(other.parameters(), 0.01)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    train(net, optimiser, batches[3:])
    train(other, resumed, batches[3:])
    for first, second in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)
