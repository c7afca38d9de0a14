"""Random draws that depend on what they are for, not on when they are asked for.

A draw is a hash of the seed and of a key, so two orderings of one workload meet the same arrivals, keys and slow tasks
(common random numbers), and a difference between them is the orderings' own.
"""

from __future__ import annotations

import math

MASK = (1 << 64) - 1


def bits(seed: int, *key: int) -> int:
    """64 well-mixed bits of integers: each is folded in by a multiplication, the sum goes through SplitMix64's finaliser."""
    state = seed
    for number in key:
        state = (state ^ number) * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03 & MASK
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
    return state ^ state >> 31


def uniform(seed: int, *key: int) -> float:
    """A number in (0, 1)."""
    return ((bits(seed, *key) >> 11) + 0.5) / (1 << 53)


def exponential(mean: float, seed: int, *key: int) -> float:
    """A waiting time with that mean."""
    return -mean * math.log(uniform(seed, *key))
