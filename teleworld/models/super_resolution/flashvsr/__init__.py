"""FlashVSR under its public names: streaming diffusion super-resolution in one step."""

from teleworld.models.super_resolution.flashvsr.config import FLASH_VSR, FlashVSRConfig
from teleworld.models.super_resolution.flashvsr.network import FlashVSR

__all__ = ["FLASH_VSR", "FlashVSR", "FlashVSRConfig"]
