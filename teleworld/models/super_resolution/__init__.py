"""Streaming video super-resolution with locality-constrained sparse attention (paper 3.6.3)."""

from teleworld.models.super_resolution.config import SuperResolutionConfig
from teleworld.models.super_resolution.network import SuperResolution, load_super_resolution, save_super_resolution

__all__ = ["SuperResolution", "SuperResolutionConfig", "load_super_resolution", "save_super_resolution"]
