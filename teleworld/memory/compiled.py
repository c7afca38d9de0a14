"""One place that says how the memory's inner loops are compiled, so that all of them keep the same promises.

Loops run without the GIL and on one thread. `fastmath` stays off: the order of floating-point operations is the source's,
so that the same input gives the same bits on every run, which the replay of a world relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop; the machine code is kept on disk where there is a place to write to, else made anew each start."""
    try:
        return numba.njit(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError:  # numba finds no writable cache folder, as in a container with a read-only root
        return numba.njit(function, nogil=True, error_model="numpy")
