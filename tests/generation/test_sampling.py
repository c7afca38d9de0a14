"""Sampling: few-step as Self-Forcing tells it, guidance as a blend of two predictions, levels as the settings say."""

from __future__ import annotations

import math

import pytest
import torch

from teleworld.generation.noise import noise
from teleworld.generation.sampler import SELF_FORCING, WAN_UNDISTILLED, Branch, Sampling, sample_group
from teleworld.generation.solvers import Method
from teleworld.models.dit import KVCache
from teleworld.world.errors import InvalidInput

SHAPE = (4, 2, 3)
PROMPT, NEGATIVE = Branch(KVCache(()), None), Branch(KVCache(()), None)


class Stub:
    """A network whose clean latents are a fixed share of what it sees, another under each prompt."""

    def __init__(self) -> None:
        self.levels: list[float] = []

    def predict_clean(self, x, sigma, indices, text, visible, guidance, extra):
        self.levels.append(float(sigma[0]))
        return x * 0.5 if text is PROMPT.text else x * 0.25


def sample(network: Stub, sampling: Sampling, branches=(PROMPT,)) -> torch.Tensor:
    return sample_group(
        network, (2, 4), sampling=sampling, places=[(1, 3)], shape=SHAPE, branches=branches, guidance=None
    )


def test_the_published_few_steps():
    assert [1000 * sigma for sigma in SELF_FORCING.sigmas] == pytest.approx([1000, 937.5, 833.333, 625], abs=1e-3)


def test_few_step_renoises_each_prediction_with_fresh_noise():
    network = Stub()
    draw = lambda step: noise(1, 3, (2, 4), step, SHAPE)  # noqa: E731
    x = draw(0)
    for number, after in ((1, 0.9375), (2, 0.8333333), (3, 0.625)):
        x = (1 - after) * (x * 0.5) + after * draw(number)
    torch.testing.assert_close(sample(network, SELF_FORCING), x * 0.5)
    assert network.levels == pytest.approx(SELF_FORCING.sigmas)


@pytest.mark.parametrize("method", Method)
def test_guidance_goes_beyond_the_prompt_away_from_the_negative_one(method: Method):
    """u + w (c - u): with c = x / 2, u = x / 4 and w = 2 the network says 3/4 x."""
    network = Stub()
    one = sample(network, Sampling(1, 1.0, method, 2.0), (PROMPT, NEGATIVE))
    torch.testing.assert_close(one, 0.75 * noise(1, 3, (2, 4), 0, SHAPE), rtol=1e-4, atol=1e-5)
    assert len(network.levels) == 2, "both prompts at each step"


@pytest.mark.parametrize("method", [Method.EULER, Method.UNIPC])
def test_integration_follows_the_flow_to_its_end(method: Method):
    """Where the clean latents are known for certain, every way of integrating ends there."""

    class Certain(Stub):
        def predict_clean(self, x, sigma, *_):
            return torch.full_like(x, 0.3)

    found = sample(Certain(), Sampling(20, 5.0, method))
    torch.testing.assert_close(found, torch.full_like(found, 0.3), rtol=0, atol=1e-5)


def test_more_steps_come_nearer_to_the_flow_and_unipc_sooner_than_euler():
    """Where the velocity is x itself, x falls as the exponential of sigma."""
    start = noise(1, 3, (2, 4), 0, SHAPE)

    def error(method: Method, steps: int) -> float:
        levels: list[torch.Tensor] = []

        class Watching(Stub):
            def predict_clean(self, x, sigma, *_):
                levels.append(x)
                return x - sigma * x

        sampling = Sampling(steps, 1.0, method)
        sample(Watching(), sampling)
        exact = start * math.exp(sampling.sigmas[-1] - sampling.sigmas[0])
        return float((levels[-1] - exact).norm() / exact.norm())

    assert error(Method.EULER, 40) < 0.3 * error(Method.EULER, 10)
    assert error(Method.UNIPC, 10) < 0.2 * error(Method.EULER, 10)


def test_the_published_settings_of_an_undistilled_checkpoint():
    assert WAN_UNDISTILLED.guided and WAN_UNDISTILLED.method is Method.UNIPC and len(WAN_UNDISTILLED.sigmas) == 50
    assert not SELF_FORCING.guided
    assert all(a > b for a, b in zip(WAN_UNDISTILLED.sigmas, WAN_UNDISTILLED.sigmas[1:], strict=False))


@pytest.mark.parametrize(("settings", "field"), [({"steps": 0}, "steps"), ({"shift": 0.0}, "shift")])
def test_impossible_settings_are_refused(settings, field: str):
    with pytest.raises(InvalidInput, match=f"sampling.{field}"):
        Sampling(**settings)
