"""The 4D memory (paper 3.3): tasks G and R. State lives in Redis. Run as `python -m services.reconstructor`."""
