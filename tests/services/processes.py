"""Start a service as a real process, and read what it announces on stdout."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A running service. `address` is known once it has announced that it listens."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.address = ""

    async def heard(self, event: str) -> dict[str, Any]:
        """The next announcement of `event`."""
        assert self.child.stdout is not None
        async with asyncio.timeout(60):
            while line := await self.child.stdout.readline():
                said = json.loads(line)
                self.address = said.get("address", self.address)
                if said["event"] == event:
                    return said
        raise AssertionError(f"the process ended without {event}: {await self.log()}")

    async def log(self) -> str:
        """Everything on stderr, after the end."""
        assert self.child.stderr is not None
        return (await self.child.stderr.read()).decode()

    async def ended(self, seconds: float = 30) -> int:
        """The exit status."""
        return await asyncio.wait_for(self.child.wait(), seconds)


@asynccontextmanager
async def process(module: str, *arguments: str, **settings: object) -> AsyncIterator[Process]:
    """`python -m module`, killed if it is still there at the end.

    settings: TELEWORLD_ settings by their field's name, other variables by their whole name in capitals.
    """
    variables = {
        name if name.isupper() else f"TELEWORLD_{name.upper()}": str(value) for name, value in settings.items()
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        cwd=ROOT,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(child)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
