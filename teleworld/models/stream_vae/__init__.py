"""Stream-VAE: causal video autoencoders whose cache belongs to the session (paper 3.6)."""

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.state import StreamState
from teleworld.models.stream_vae.wan import WanStreamVAE
from teleworld.models.stream_vae.wan_config import WAN21_VAE, WAN22_VAE, WanVAEConfig

__all__ = ["WAN21_VAE", "WAN22_VAE", "DecoderGuidance", "StreamState", "StreamVAE", "WanStreamVAE", "WanVAEConfig"]
