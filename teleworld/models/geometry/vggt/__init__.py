"""VGGT and VGGT4D under their public names: geometry of pictures without given cameras, and what moves in them."""

from teleworld.models.geometry.vggt.config import VGGT_1B, EncoderConfig, SaliencyLayers, VGGTConfig
from teleworld.models.geometry.vggt.model import VGGT, VGGTOutput, camera_matrices, load_vggt

__all__ = [
    "VGGT",
    "VGGT_1B",
    "EncoderConfig",
    "SaliencyLayers",
    "VGGTConfig",
    "VGGTOutput",
    "camera_matrices",
    "load_vggt",
]
