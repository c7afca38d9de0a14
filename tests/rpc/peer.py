"""A server in a process of its own, which a test may stop: `python -m tests.rpc.peer [SECONDS]`. It says its address, and that it
serves. With SECONDS it then computes for so long, as bad code does: no other line of Python runs meanwhile.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys

from teleworld.rpc.server import Server, ServerConfig, run


async def main(busy_seconds: int) -> None:
    """Serve until told to stop."""

    async def warm_up() -> None:
        if busy_seconds:
            # PyDLL keeps the interpreter's lock; a moment later, so that somebody has connected.
            asyncio.get_running_loop().call_later(1.0, ctypes.PyDLL(None).sleep, busy_seconds)

    await run(Server("peer", ServerConfig(drain_seconds=0.1)), warm_up)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
