"""The deadline of the call being served, so that calls made on its behalf never outlive it.

The server interceptor binds it for the duration of a handler; a client call takes the smaller of its own timeout and what
is left. Tasks started by a handler inherit it; work that is meant to outlive the call is started in a context of its own
(`runtime/aiokit.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from teleworld.world.errors import DeadlineExceeded

_deadline: ContextVar[float | None] = ContextVar("teleworld_deadline", default=None)


def remaining() -> float | None:
    """Seconds left to the call being served; None when it has no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - time.monotonic()


@contextmanager
def bound(seconds: float | None) -> Iterator[None]:
    """Inside, `remaining` counts down from `seconds`; None leaves no deadline."""
    token = _deadline.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def cap(timeout: float) -> float:
    """The smaller of `timeout` and what is left, in seconds. Raises DeadlineExceeded when nothing is left."""
    left = remaining()
    result = timeout if left is None else min(timeout, left)
    if result <= 0:
        raise DeadlineExceeded("no time is left for the call")
    return result
