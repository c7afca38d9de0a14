"""The diffusion transformer of planner and populator."""

from teleworld.models.dit.config import NANO, WAN_1_3B, WAN_14B, WAN_14B_I2V, WAN_18B, DiTConfig, Parametrization
from teleworld.models.dit.kv_cache import KVCache
from teleworld.models.dit.model import DiT

__all__ = ["NANO", "WAN_1_3B", "WAN_14B", "WAN_14B_I2V", "WAN_18B", "DiT", "DiTConfig", "KVCache", "Parametrization"]
