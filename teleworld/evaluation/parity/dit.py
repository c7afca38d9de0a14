"""The transformer beside diffusers' WanTransformer3DModel, and its KV cache beside the same network under a mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.evaluation.parity.table import Check, Row, compare, shake
from teleworld.generation.conditioning import visible_context
from teleworld.models.checkpoint import load_into
from teleworld.models.dit import DiT, DiTConfig, blocks
from teleworld.models.naming import convert
from teleworld.world.timeline import ChainMode, Timeline

FRAMES, HEIGHT, WIDTH = 3, 6, 8
# head_dim 32 splits over (t, h, w) as 12 + 10 + 10: unequal, like the published 44 + 42 + 42.
SMALL = DiTConfig(dim=64, ffn=96, heads=2, layers=3, channels=4, text_dim=24, text_length=7, frequency_dim=32)
# The public library finds the picture's tokens by counting 512 of text from the end.
PICTURED = replace(SMALL, extra_channels=8, picture_dim=40, text_length=512)
CONFIGS = {
    "T2V, 2 heads of 32": SMALL,
    "T2V, 4 heads of 16, 5 layers": replace(SMALL, heads=4, layers=5),
    "T2V, one head of 128": replace(SMALL, dim=128, heads=1, ffn=200, layers=2),
    "T2V, patch (1, 1, 2)": replace(SMALL, patch=(1, 1, 2)),
    "I2V, channels 4 + 8, picture": PICTURED,
    "I2V, channels 16 + 20, 36 in all, picture": replace(PICTURED, channels=16, extra_channels=20, layers=2),
    "I2V, channels alone (Wan2.2)": replace(SMALL, extra_channels=8),
}
PICTURE_TOKENS = 5


def public_model(config: DiTConfig) -> Any:
    """The public library's network of that configuration."""
    from diffusers import WanTransformer3DModel

    model: Any = WanTransformer3DModel(
        patch_size=config.patch,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.channels + config.extra_channels,
        out_channels=config.channels,
        text_dim=config.text_dim,
        freq_dim=config.frequency_dim,
        ffn_dim=config.ffn,
        num_layers=config.layers,
        cross_attn_norm=True,
        eps=config.eps,
        image_dim=config.picture_dim or None,
        added_kv_proj_dim=config.dim if config.picture_dim else None,
    )
    return model.eval()


def twins(config: DiTConfig) -> tuple[DiT, nn.Module]:
    """Our model and the public one with the same random weights."""
    torch.manual_seed(3)
    theirs = public_model(config)
    shake(theirs, 4, 0.1)
    ours = DiT(config).eval()
    load_into(ours, convert(theirs.state_dict(), "wan"), strict=True)
    return ours, theirs


def inputs(config: DiTConfig, batch: int = 2) -> tuple[Tensor, Tensor, Tensor | None]:
    """Latents [B, channels + extra, F, h, w], text [B, T, text_dim], picture [B, P, picture_dim]."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    latents = draw(batch, config.channels + config.extra_channels, FRAMES, HEIGHT, WIDTH)
    text = draw(batch, config.text_length, config.text_dim)
    return latents, text, draw(batch, PICTURE_TOKENS, config.picture_dim) if config.picture_dim else None


def predict(ours: DiT, latents: Tensor, timestep: Tensor, text: Tensor, picture: Tensor | None) -> Tensor:
    """Our prediction for latents that carry their extra channels, at 1-based indices 1..F."""
    channels = ours.config.channels
    extra = latents[:, channels:] if ours.config.extra_channels else None
    return ours(
        latents[:, :channels], timestep, range(1, latents.shape[2] + 1), ours.read_text(text, picture), extra=extra
    )


def full_attention() -> Iterator[Row]:
    """One timestep a sample, one a latent frame, and bfloat16."""
    for name, config in CONFIGS.items():
        ours, theirs = twins(config)
        latents, text, picture = inputs(config)
        timestep = torch.tensor([937.5, 250.0])
        expected = theirs(latents, timestep, text, encoder_hidden_states_image=picture).sample
        found = predict(ours, latents, timestep[:, None].expand(-1, FRAMES), text, picture)
        yield compare("DiT", name, "diffusers", found, expected, note="fp32")
    ours, theirs = twins(SMALL)
    latents, text, _ = inputs(SMALL)
    timestep = torch.tensor([[0.0, 500.0, 1000.0], [625.0, 0.0, 833.0]])
    tokens = (HEIGHT // SMALL.patch[1]) * (WIDTH // SMALL.patch[2])
    expected = theirs(latents, timestep.repeat_interleave(tokens, dim=1), text).sample
    yield compare(
        "DiT",
        "T2V, a timestep each frame",
        "diffusers",
        predict(ours, latents, timestep, text, None),
        expected,
        note="fp32",
    )
    for name, config in (("T2V", SMALL), ("I2V", PICTURED)):
        ours, theirs = twins(config)
        latents, text, picture = inputs(config)
        timestep = torch.tensor([937.5, 250.0])[:, None].expand(-1, FRAMES)
        exact = predict(ours, latents, timestep, text, picture)
        half = lambda t: None if t is None else t.bfloat16()  # noqa: E731
        rough = predict(ours.bfloat16(), latents.bfloat16(), timestep, text.bfloat16(), half(picture))
        yield compare("DiT", f"{name}, bfloat16", "itself in fp32", rough, exact, bound=0.05, note="bf16, stated")


def planned_order() -> Iterator[Row]:
    """Group by group against a cache, and all at once under a mask that lets each token see what its group may."""
    for latents, chain in ((6, ChainMode.T_C), (10, ChainMode.T_B), (5, ChainMode.AUTOREGRESSIVE)):
        ours, _ = twins(SMALL)
        ours = ours.double()
        timeline = Timeline.of(latents, chain)
        generator = torch.Generator().manual_seed(6)
        clean = torch.randn(1, SMALL.channels, latents, 4, 6, generator=generator, dtype=torch.double)
        text = ours.read_text(torch.randn(1, 7, SMALL.text_dim, generator=generator, dtype=torch.double))
        for group in timeline.groups:
            members, seen = timeline.members(group), timeline.visible(group)
            noisy = torch.randn(1, SMALL.channels, len(members), 4, 6, generator=generator, dtype=torch.double)
            at = lambda indices: clean[:, :, [index - 1 for index in indices]]  # noqa: B023, E731
            level = torch.full((1, len(members)), 700.0, dtype=torch.double)
            found = ours(noisy, level, members, text, visible_context(ours, timeline, group, at(seen), text))
            times = torch.cat([torch.zeros(1, len(seen), dtype=torch.double), level], dim=1)
            with _attending(_masked(group_mask(timeline, group, 2 * 3))):
                whole = ours(torch.cat([at(seen), noisy], dim=2), times, (*seen, *members), text)
            note = f"group {group} = {members}, sees {seen}"
            yield compare(
                "DiT KV cache",
                f"N={latents}, {chain.value}",
                "explicit mask",
                found,
                whole[:, :, len(seen) :],
                note=note,
            )


def group_mask(timeline: Timeline, group: int, tokens: int) -> Tensor:
    """[L, L], true where a token may look: L tokens of `visible(group)` and then of its members.

    A clean latent sees its own group and what that group saw, so far as it is there at all.
    """
    order = [*timeline.visible(group), *timeline.members(group)]
    mask = torch.zeros(len(order), len(order), dtype=torch.bool)
    for row, index in enumerate(order):
        own = timeline.group_of(index)
        allowed = {*timeline.members(own), *timeline.visible(own)}
        mask[row] = torch.tensor([other in allowed for other in order])
    return mask.repeat_interleave(tokens, dim=0).repeat_interleave(tokens, dim=1)


@contextmanager
def _attending(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Inside, the blocks attend by another function."""
    usual = blocks.attend
    blocks.attend = attend  # type: ignore[assignment]
    try:
        yield
    finally:
        blocks.attend = usual


def _masked(mask: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention under `mask` where queries and keys are the same tokens; elsewhere (text) everything is seen."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        chosen = mask if query.shape[1] == key.shape[1] == len(mask) else None
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=chosen).transpose(1, 2)

    return attend


CHECKS = (Check("transformer, full attention", full_attention), Check("transformer, planned order", planned_order))
