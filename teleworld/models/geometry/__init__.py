"""Geometry: metric depth, its confidence, and the dynamic mask of key frames (paper 3.3)."""

from teleworld.models.geometry.config import NANO_GEOMETRY, VGGT_GEOMETRY, GeometryConfig, SaliencyGroups
from teleworld.models.geometry.inputs import GeometryBackend, GeometryEstimate
from teleworld.models.geometry.network import GeometryNetwork, GeometryOutput

__all__ = [
    "NANO_GEOMETRY",
    "VGGT_GEOMETRY",
    "GeometryBackend",
    "GeometryConfig",
    "GeometryEstimate",
    "GeometryNetwork",
    "GeometryOutput",
    "SaliencyGroups",
]
