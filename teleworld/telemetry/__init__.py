"""Logs, traces and metrics of a process. Services and the CLI set them up; library code uses `logging` and opentelemetry-api.

`start` configures all three at the start of a process; `Telemetry.shutdown` flushes them, within a bound, at its end.
"""

from teleworld.telemetry.setup import Telemetry, start

__all__ = ["Telemetry", "start"]
