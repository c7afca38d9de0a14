"""Workers without networks: real requests, real tensors, real errors, and a device that is held instead of computing.

See docs/emulation.md for what is emulated and what is real.
"""
