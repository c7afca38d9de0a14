"""Context parallelism is exact: on 2 and 4 ranks the planned, cached order gives what one process gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from teleworld.models.dit import NANO, DiT
from teleworld.models.parallel import WHOLE, Sharding
from teleworld.world.errors import InvalidInput
from tests.models.parallel import work
from tests.models.parallel.ranks import on_ranks


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_segment_is_the_same_and_each_rank_holds_its_share_of_the_cache(ranks: int, tmp_path: Path):
    answers = on_ranks(ranks, tmp_path, work.everything_on_this_rank, 3)
    for (dtype, tolerance), index in (((torch.float64, 1e-12), 0), ((torch.float32, 1e-5), 1)):
        with torch.no_grad():
            dit = work.network(3, dtype)
            plan, half = work.segment(dit)
            text = dit.read_text(torch.zeros(1, 5, work.CONFIG.text_dim, dtype=dtype))
            blank = torch.zeros(1, work.CONFIG.channels, 2, work.HEIGHT, work.WIDTH, dtype=dtype)
            cache = dit.read_clean(blank, (1, 2), text, None)
        for answer in answers:
            found = answer["segments"][index]
            for name, expected in (("plan", plan.numpy()), ("half", half.numpy())):
                assert np.abs(found[name] - expected).max() <= tolerance * np.abs(expected).max()
            assert found["cache"] * ranks == cache.nbytes
    expected = work.gradients(work.network(3, torch.float64), WHOLE)
    for answer in answers:
        assert all(turned and gathered for turned, gathered in answer["round trips"])
        for name, value in expected.items():
            # Norms and RoPE compute in float32 whatever the weights are.
            error = np.abs(answer["gradients"][name] - value.numpy()).max()
            assert error <= 1e-6 * value.abs().max().item(), name


class Three(Sharding):
    ranks = 3

    def check(self, heads: int) -> None:
        if heads % self.ranks:
            raise InvalidInput("heads", f"{heads}")


def test_what_cannot_be_divided_is_refused():
    with torch.device("meta"):
        with pytest.raises(InvalidInput, match="heads"):
            DiT(work.CONFIG).shard_over(Three())
        with pytest.raises(InvalidInput, match="mixing"):
            DiT(NANO).shard_over(Three())
