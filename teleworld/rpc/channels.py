"""Channel and server options that both ends must agree on.

gRPC's defaults do not fit here: 4 MiB a message is less than the guidance of a large segment, transparent retries would
hide a lost worker from the scheduler, which retries elsewhere itself, and a server answers a client's pings every ten
seconds by closing the connection.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

MAX_MESSAGE_BYTES = 16 * 2**20
KEEPALIVE_MS = 20_000
KEEPALIVE_TIMEOUT_MS = 10_000

Options = Sequence[tuple[str, int]]

_LIMITS: Options = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
CHANNEL_OPTIONS: Options = (
    *_LIMITS,
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # A worker that came back is found again within a second, not within gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Channels of one process do not share connections, so that one peer's flow control never delays another caller.
    ("grpc.use_local_subchannel_pool", 1),
)
SERVER_OPTIONS: Options = (
    *_LIMITS,
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A second process on the same port must fail to bind, not share it.
    ("grpc.so_reuseport", 0),
)


def open_channel(address: str, options: Options = ()) -> grpc.aio.Channel:
    """A plaintext channel to one `host:port`. It connects when it is first used; close it with `await channel.close()`."""
    return grpc.aio.insecure_channel(address, options=[*CHANNEL_OPTIONS, *options])
