"""Running groups against a cache is the same as one pass under an attention mask."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from teleworld.models.dit import NANO, DiT, KVCache, Parametrization
from teleworld.models.dit import blocks as blocks_module
from teleworld.world.errors import InvalidInput

SMALL = replace(
    NANO,
    dim=32,
    ffn=48,
    heads=2,
    layers=3,
    channels=4,
    extra_channels=0,
    guidance_channels=4,
    text_dim=8,
    text_length=5,
)


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    dit = DiT(replace(SMALL, mixing=False, parametrization=Parametrization.VELOCITY))
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return dit.double().eval().requires_grad_(False)


def test_cached_groups_equal_one_masked_pass(dit, monkeypatch):
    """{1}, then {2, 4, 6} noisy seeing {1}: against all four frames at once, frame 1 masked from the others."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(1, 4, 4, 4, 6, generator=generator, dtype=torch.double)
    text = dit.read_text(torch.randn(1, 5, 8, generator=generator, dtype=torch.double))
    clean = dit.read_clean(frames[:, :, :1], (1,), text, None)
    times = torch.tensor([[700.0, 700.0, 700.0]], dtype=torch.double)
    cached = dit(frames[:, :, 1:], times, (2, 4, 6), text, clean)

    tokens = 2 * 3
    mask = torch.ones(4 * tokens, 4 * tokens, dtype=torch.bool)
    mask[:tokens, tokens:] = False

    def masked(q, k, v):
        square = mask if q.shape[1] == k.shape[1] else None
        out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=square)
        return out.transpose(1, 2)

    monkeypatch.setattr(blocks_module, "attend", masked)
    all_times = torch.cat([torch.zeros(1, 1, dtype=torch.double), times], dim=1)
    at_once = dit(frames, all_times, (1, 2, 4, 6), text)[:, :, 1:]
    assert torch.allclose(cached, at_once, rtol=1e-6, atol=1e-6)


def test_guidance_attends_to_guidance_alone(dit):
    """What guidance leaves behind does not depend on the frames that it guides."""
    generator = torch.Generator().manual_seed(2)
    guidance = torch.randn(1, 4, 2, 4, 6, generator=generator, dtype=torch.double)
    text = dit.read_text(torch.zeros(1, 5, 8, dtype=torch.double))
    both = dit.read_guidance(guidance, (2, 4), text)
    alone = dit.read_guidance(guidance[:, :, :1], (2,), text)
    assert torch.allclose(both.layers[0].keys[:, :6], alone.layers[0].keys), "layer 0 sees only its own token"
    assert not torch.allclose(both.layers[-1].keys[:, :6], alone.layers[-1].keys), "later layers see the other latent"


def test_caches_join_and_split(dit):
    text = dit.read_text(torch.zeros(1, 5, 8, dtype=torch.double))
    joined = KVCache.joined([text, text])
    assert joined is not None and joined.nbytes == 2 * text.nbytes
    assert torch.equal(joined.tokens(slice(5, 10)).layers[1].values, text.layers[1].values)
    assert KVCache.joined([]) is None


def test_an_untrained_guided_network_answers_the_guidance_from_noise_and_the_latents_near_their_end():
    """In between, the answer is the mean of a normal prior about the guidance, given the noisy latents."""
    torch.manual_seed(0)
    dit = DiT(replace(SMALL, extra_channels=5, guidance_channels=5, guess_variance=0.25))
    guidance, noisy = torch.randn(1, 5, 2, 4, 6), torch.randn(1, 4, 2, 4, 6)
    text = dit.read_text(torch.zeros(1, 5, 8))
    answer = lambda sigma: dit.predict_clean(noisy, torch.tensor([sigma]), (2, 3), text, None, guidance)  # noqa: E731
    shown = guidance[:, :-1]
    assert torch.equal(answer(1.0), shown)
    torch.testing.assert_close(answer(1e-4), noisy, rtol=1e-3, atol=1e-3)
    precision = 0.25 * (0.7 / 0.3) ** 2  # of noisy / 0.7 as a measurement, over the prior's
    torch.testing.assert_close(answer(0.3), (shown + precision * noisy / 0.7) / (1 + precision))


@pytest.mark.parametrize("variance", [0.0, -1.0, float("inf"), float("nan")])
def test_a_guess_is_off_by_something(variance):
    with pytest.raises(InvalidInput, match="guess_variance"):
        replace(SMALL, guess_variance=variance)
