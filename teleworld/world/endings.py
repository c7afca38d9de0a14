"""Why a stream ends: the gateway decides it, and clients are told."""

from __future__ import annotations

from enum import Enum


class EndReason(Enum):
    """Why a stream ended."""

    CLIENT_CLOSED = "client_closed"
    REACHED_END = "reached_end"
    DRAINING = "draining"
    SUPERSEDED = "superseded"
    DELETED = "deleted"
    IDLE = "idle"
    ACK_TIMEOUT = "ack_timeout"
    ERROR = "error"
