"""The memory plan: weights are the public counts, caches the timeline's, and more of anything needs more."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from teleworld.generation.sizing import (
    FAMILIES,
    GIB,
    RESERVE,
    Need,
    assign,
    kv_bytes,
    needs_of,
    tokens_of,
    weight_bytes,
)
from teleworld.models.dit import WAN_14B, DiT
from teleworld.models.placement import Precision
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import ChainMode

BF16 = Precision.BFLOAT16


@pytest.fixture(scope="module")
def small() -> dict[str, Need]:
    """1.3B, by service."""
    return {need.service: need for need in needs_of(FAMILIES["1.3b"], precision=BF16, chain=ChainMode.T_B)}


def test_weights_are_the_public_counts(small: dict[str, Need]):
    transformer, vae, umt5 = 1_418_996_800, 126_892_531, 5_680_910_336
    assert small["populator"].parameters == transformer and small["populator"].weights == 2 * transformer
    assert small["planner"].parameters == transformer + vae + umt5


def test_14_billion_weights_in_8_bits_are_about_a_byte_each():
    with torch.device("meta"):
        transformer = DiT(WAN_14B)
    assert weight_bytes(transformer, BF16) == 2 * 14_288_491_584
    assert 14_288_491_584 < weight_bytes(transformer, Precision.FLOAT8) < 1.06 * 14_288_491_584


def test_the_cache_holds_what_the_timeline_lets_a_group_see(small: dict[str, Need]):
    """t_b of ten latents: the first half sees latents 1, 2 and 6; the plan sees latent 1. No guidance tokens at 1.3B."""
    config, spec = FAMILIES["1.3b"].dit, FAMILIES["1.3b"].spec
    assert tokens_of(config, spec) == 30 * 52
    a_token = config.layers * 2 * config.dim * 2
    assert small["populator"].kv_cache == (3 * 1560 + 512) * a_token
    assert small["planner"].kv_cache == (1 * 1560 + 512) * a_token
    whole = spec.timeline(ChainMode.T_C)
    found = kv_bytes(config, spec, whole, whole.groups[1:], BF16, guided=False)
    assert found == (7 * 1560 + 512) * a_token, "the second half sees the first"
    assert kv_bytes(config, spec, whole, whole.groups[1:], BF16, guided=True) == 2 * found
    steered = replace(config, guidance_channels=17)
    found = kv_bytes(steered, spec, whole, whole.groups[1:], BF16, guided=False)
    assert found == (10 * 1560 + 512) * a_token, "and guidance for each of its three latents"


def test_twice_the_picture_is_twice_the_activations(small: dict[str, Need]):
    family = FAMILIES["1.3b"]
    wide = replace(family, spec=replace(family.spec, lens=replace(family.spec.lens, width=1664)))
    decoder = needs_of(wide, precision=BF16, chain=ChainMode.T_B)[3]
    assert decoder.activations == pytest.approx(2 * small["decoder"].activations, rel=0.01)


def test_activations_are_of_the_order_that_the_tensors_are(small: dict[str, Need]):
    """Three latents of 1560 tokens at width 1536, hidden width 8960: a block holds the hidden layer and a few widths."""
    tokens = 3 * 1560
    hidden = tokens * 8960 * 2
    assert hidden < small["populator"].activations < 12 * hidden
    state = 3.5 * GIB / 2  # of the decoder's stream, in half precision (models/stream_vae/wan.py)
    assert state < small["decoder"].activations < 4 * state


def test_the_papers_model_fits_where_the_paper_ran_it():
    needs = needs_of(FAMILIES["18b"], precision=BF16, chain=ChainMode.T_B)
    places = assign(needs, 4)
    assert sorted(need.service for held in places for need in held) == [
        "decoder",
        "planner",
        "populator",
        "reconstructor",
    ]
    assert all(sum(need.total for need in held) < 80 * GIB for held in places)
    assert sum(need.total for need in needs) > 80 * GIB, "and not on one"


def test_services_are_spread():
    need = lambda size: Need(str(size), 0, size * GIB, 0, 0, 0)  # noqa: E731
    places = assign([need(1), need(5), need(3), need(2)], 2)
    totals = sorted(sum(one.total for one in held) - RESERVE * len(held) for held in places)
    assert totals == [5 * GIB, 6 * GIB]
    with pytest.raises(InvalidInput, match="gpus"):
        assign([need(1)], 0)
