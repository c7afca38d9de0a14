"""The C heap of a process that computes: memory that was used once is kept for the next time.

A network's activations are megabytes each and live for milliseconds. By default glibc takes such blocks from the kernel and
gives them back at once, so that every operation begins with page faults on memory that was just zeroed: a tenth to a
fifth of the time of the small networks on a CPU (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

MMAP_THRESHOLD_BYTES = 256 * 2**20
TRIM_THRESHOLD_BYTES = 1024 * 2**20
TOP_PAD_BYTES = 32 * 2**20

# Numbers of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8


def keep_memory() -> bool:
    """Serve blocks of up to MMAP_THRESHOLD_BYTES from one heap, of which up to TRIM_THRESHOLD_BYTES stay when they are free.

    One arena, because those of further threads give their memory back whatever the threshold is. Call it before the
    threads that compute begin. False where the C library is another one; nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    settings = {
        _ARENA_MAX: 1,
        _MMAP_THRESHOLD: MMAP_THRESHOLD_BYTES,
        _TRIM_THRESHOLD: TRIM_THRESHOLD_BYTES,
        _TOP_PAD: TOP_PAD_BYTES,
    }
    return all([mallopt(number, value) == 1 for number, value in settings.items()])
