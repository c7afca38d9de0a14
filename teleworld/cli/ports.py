"""Whether a port can be had, asked before anything is started that takes its time."""

from __future__ import annotations

import socket

from teleworld.world.errors import InvalidInput


def check_port(host: str, port: int) -> None:
    """Raise InvalidInput(`port`) unless `port` of `host` can be listened on now; 0 always can."""
    if not 0 <= port <= 65535:
        raise InvalidInput("port", "must lie between 0 and 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # the standard library repeats the address
        raise InvalidInput("port", f"{host}:{port} cannot be listened on: {why}; 0 chooses a free one") from error
