"""Latents to video (paper 3.5): task D. Run as `python -m services.decoder`."""
