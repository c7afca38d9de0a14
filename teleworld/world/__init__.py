"""The domain: timeline, controls, camera, identifiers, errors. Pure Python and numpy; no I/O, no torch, no gRPC."""
