"""The networks: diffusion transformer, Stream-VAE, geometry, super-resolution, text encoder; and how weights are loaded."""
