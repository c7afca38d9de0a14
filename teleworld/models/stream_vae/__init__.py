"""Stream-VAE: causal video autoencoders whose cache belongs to the session (paper 3.6)."""

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.state import StreamState
from teleworld.models.stream_vae.wan import WAN21_VAE, WanStreamVAE, WanVAEConfig

__all__ = ["WAN21_VAE", "DecoderGuidance", "StreamState", "StreamVAE", "WanStreamVAE", "WanVAEConfig"]
