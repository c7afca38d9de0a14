"""Adaptive workload ordering (paper 3.6.1) as a pure policy: state in, decisions out. No I/O, no clock of its own."""
