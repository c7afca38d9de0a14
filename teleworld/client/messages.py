"""Between the messages of `teleworld.gateway.v1` and the SDK's values. An answer that cannot be read is an Internal error."""

from __future__ import annotations

from datetime import UTC

from teleworld._proto.gateway.v1 import stream_pb2, world_pb2, world_service_pb2
from teleworld.client.events import (
    Attached,
    Chunk,
    End,
    Pace,
    Receipt,
    ReceiptState,
    Rewound,
    World,
    WorldState,
)
from teleworld.rpc.convert.common import read_chain, read_path
from teleworld.world.endings import EndReason
from teleworld.world.errors import Internal, InvalidInput

_WORLD_STATES = {
    world_pb2.WORLD_STATE_CREATING: WorldState.CREATING,
    world_pb2.WORLD_STATE_READY: WorldState.READY,
    world_pb2.WORLD_STATE_STREAMING: WorldState.STREAMING,
    world_pb2.WORLD_STATE_FAILED: WorldState.FAILED,
}
_RECEIPT_STATES = {
    stream_pb2.Receipt.STATE_RECEIVED: ReceiptState.RECEIVED,
    stream_pb2.Receipt.STATE_APPLIED: ReceiptState.APPLIED,
}
_END_REASONS = {stream_pb2.EndReason.Value(f"END_REASON_{reason.name}"): reason for reason in EndReason}
_PACES = {Pace.REALTIME: stream_pb2.PACE_REALTIME, Pace.MAX: stream_pb2.PACE_MAX}


def write_pace(pace: Pace) -> stream_pb2.Pace.ValueType:
    return _PACES[pace]


def read_world(message: world_pb2.World) -> World:
    """The world of an answer."""
    if message.state not in _WORLD_STATES:
        raise InvalidInput("world.state", f"unknown state {message.state}")
    return World(
        name=message.name,
        state=_WORLD_STATES[message.state],
        model=message.model,
        weights_digest=message.weights_digest,
        seed=message.seed,
        prompt=message.prompt,
        chain=read_chain(message.chain_mode, "world.chain_mode"),
        fps=message.fps,
        width=message.width,
        height=message.height,
        created=message.create_time.ToDatetime(tzinfo=UTC),
        chunks=message.chunks,
        memory_revision=message.memory_revision,
        static_points=message.static_points,
        forked_from=message.forked_from,
        forked_at_chunk=message.forked_at_chunk if message.HasField("forked_at_chunk") else None,
        reanchor=message.reanchor,
    )


def read_event(message: world_service_pb2.StreamWorldResponse) -> Attached | Chunk | Receipt | Rewound | End | None:
    """What a message of a stream says; None for a heartbeat, or for something newer than this SDK."""
    try:
        match message.WhichOneof("message"):
            case "attached":
                return _read_attached(message.attached)
            case "chunk":
                return _read_chunk(message.chunk)
            case "receipt":
                return _read_receipt(message.receipt)
            case "rewound":
                return Rewound(message.rewound.to_chunk)
            case "end":
                return _read_end(message.end)
    except InvalidInput as error:
        raise Internal(f"the gateway sent a bad event: {error.message}") from error
    return None


def _read_attached(message: stream_pb2.Attached) -> Attached:
    if message.codec != stream_pb2.VIDEO_CODEC_H264_ANNEX_B:
        raise InvalidInput("attached.codec", f"unknown codec {message.codec}")
    return Attached(message.epoch, message.fps_target, message.next_chunk, message.width, message.height)


def _read_chunk(message: stream_pb2.Chunk) -> Chunk:
    return Chunk(
        index=message.index,
        segment=message.segment,
        latent=message.latent,
        first_frame=message.first_frame,
        frames=message.frames,
        video=message.video,
        path=read_path(message.path, "chunk.path", message.frames),
        control_sequence=message.control_sequence,
        latent_sha256=message.latent_sha256,
        stage_ms=dict(message.stage_ms),
        key_to_frame_ms=message.key_to_frame_ms if message.HasField("key_to_frame_ms") else None,
    )


def _read_receipt(message: stream_pb2.Receipt) -> Receipt:
    if message.state not in _RECEIPT_STATES:
        raise InvalidInput("receipt.state", f"unknown state {message.state}")
    chunk = message.chunk if message.HasField("chunk") else None
    return Receipt(message.sequence, _RECEIPT_STATES[message.state], chunk)


def _read_end(message: stream_pb2.End) -> End:
    reason = _END_REASONS.get(message.reason, EndReason.ERROR)
    return End(reason, message.message, message.last_chunk if message.HasField("last_chunk") else None)
