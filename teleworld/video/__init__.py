"""Pixels in and out of the system: start pictures, H.264 chunks, MP4 files."""

from teleworld.video.h264 import DecodeLimits, H264Settings, decode_chunk, encode_chunk
from teleworld.video.mp4 import Mp4Writer
from teleworld.video.pictures import PictureLimits, load_picture

__all__ = ["DecodeLimits", "H264Settings", "Mp4Writer", "PictureLimits", "decode_chunk", "encode_chunk", "load_picture"]
