"""A VGGT that is small enough for tests, with every part that the published one has."""

from __future__ import annotations

from teleworld.models.geometry.vggt import EncoderConfig, SaliencyLayers, VGGTConfig

SMALL = VGGTConfig(
    width=32,
    heads=2,
    depth=4,
    trunk=1,
    features=16,
    channels=(8, 8, 16, 16),
    taps=(0, 1, 2, 3),
    encoder=EncoderConfig(width=32, heads=2, depth=2, registers=4, image=56),
    saliency=SaliencyLayers((1, 2), (2, 3), (2, 3), (0,)),
    suppressed=(1, 2),
)
