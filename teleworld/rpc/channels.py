"""Channel and server options that both ends must agree on.

gRPC's defaults do not fit here: 4 MiB a message is less than the guidance of a large segment (17 MB with 18B), transparent
retries would hide a lost worker from the scheduler, which retries elsewhere itself, and a server takes a client's pings
within five minutes of each other for abuse, and closes the connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

MAX_MESSAGE_BYTES = 64 * 2**20
KEEPALIVE_MS = 5_000
KEEPALIVE_TIMEOUT_MS = 5_000
"""Whoever calls finds out within the two together that a peer hangs, or that the network swallows everything."""
CALLER_KEEPALIVE_MS = 20_000
"""A server looks after its callers less often: they come from anywhere, and one that is gone costs little."""

Options = Sequence[tuple[str, int | str]]

_SENDING: Options = (("grpc.max_send_message_length", MAX_MESSAGE_BYTES),)
CHANNEL_OPTIONS: Options = (
    *_SENDING,
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    # The longer one of the two counts, and this is a minute unless it is said.
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # A worker that came back is found again within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long one attempt may take, whatever its name says: a busy node answers late, and is not away.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Channels of one process do not share connections, so that one peer's flow control never delays another caller.
    ("grpc.use_local_subchannel_pool", 1),
)
SERVER_OPTIONS: Options = (
    *_SENDING,
    ("grpc.keepalive_time_ms", CALLER_KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 2 * KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", 2 * KEEPALIVE_TIMEOUT_MS),
    # Of pings that come sooner, the third closes the connection. A caller waits for the answer to one before its next, so a
    # server that is short of processor time never sees two closer than the caller's interval.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A second process on the same port must fail to bind, not share it.
    ("grpc.so_reuseport", 0),
)


def open_channel(
    address: str,
    options: Options = (),
    *,
    credentials: grpc.ChannelCredentials | None = None,
    peer: str = "",
    token: str = "",
) -> grpc.aio.Channel:
    """A channel to one `host:port`. It connects when it is first used; close it with `await channel.close()`.

    credentials: of TLS; plaintext without. peer: the name that the peer's certificate must prove, where that is not the
    host's (a worker is dialled by the address of its pod). token: sent with every call as `authorization: Bearer`.
    """
    given: list[tuple[str, int | str]] = [*{**dict(CHANNEL_OPTIONS), **dict(options)}.items()]
    interceptors = [bearer(token) for bearer in _BEARERS] if token else []
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=given, interceptors=interceptors)
    if peer:
        given.append(("grpc.ssl_target_name_override", peer))
    return grpc.aio.secure_channel(address, credentials, options=given, interceptors=interceptors)


class _Bearer:
    """Adds the credential. gRPC's own call credentials refuse plaintext, which a sidecar or loopback may well be.

    One class a kind of call: gRPC takes an interceptor for the first kind that it is of, and for no other.
    """

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    async def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), self._header)
        more = grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )
        return await continuation(more, request)


class _UnaryUnaryBearer(_Bearer, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary: Any = _Bearer._call


class _UnaryStreamBearer(_Bearer, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream: Any = _Bearer._call


class _StreamUnaryBearer(_Bearer, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[misc]
    intercept_stream_unary: Any = _Bearer._call


class _StreamStreamBearer(_Bearer, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[misc]
    intercept_stream_stream: Any = _Bearer._call


_BEARERS = (_UnaryUnaryBearer, _UnaryStreamBearer, _StreamUnaryBearer, _StreamStreamBearer)
