"""Our values as messages of the public API."""

from __future__ import annotations

import time

from google.protobuf.timestamp_pb2 import Timestamp

from services.gateway.endings import Ending, Reason
from services.gateway.states import View
from teleworld._proto.gateway.v1 import stream_pb2, world_pb2
from teleworld.rpc.convert.common import write_chain, write_path
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.world.identifiers import world_name

_REASONS = {reason: stream_pb2.EndReason.Value(f"END_REASON_{reason.name}") for reason in Reason}


def write_world(view: View) -> world_pb2.World:
    record, state = view.record, view.state
    width, height = record.spec.output_size
    created = Timestamp()
    created.FromNanoseconds(int(record.created * 1e9))
    return world_pb2.World(
        name=world_name(record.world),
        state=world_pb2.WORLD_STATE_STREAMING if state.leased else world_pb2.WORLD_STATE_READY,
        model=record.model,
        weights_digest=record.weights,
        seed=record.seed,
        prompt=record.prompt.text if state.prompt_text is None else state.prompt_text,
        chain_mode=write_chain(record.chain),
        fps=record.spec.fps,
        width=width,
        height=height,
        create_time=created,
        chunks=state.head,
        memory_revision=state.revision or 0,
        static_points=state.static_points,
        forked_from=world_name(record.fork.source) if record.fork else "",
        forked_at_chunk=record.fork.chunk if record.fork else None,
        reanchor=record.reanchor,
    )


def write_attached(record: WorldRecord, epoch: int, next_chunk: int) -> stream_pb2.Attached:
    width, height = record.spec.output_size
    return stream_pb2.Attached(
        epoch=epoch,
        fps_target=record.spec.fps,
        next_chunk=next_chunk,
        width=width,
        height=height,
        codec=stream_pb2.VIDEO_CODEC_H264_ANNEX_B,
    )


def write_chunk(chunk: Chunk, key_to_frame_ms: float | None = None) -> stream_pb2.Chunk:
    return stream_pb2.Chunk(
        index=chunk.index,
        segment=chunk.segment,
        latent=chunk.latent,
        first_frame=chunk.first_frame,
        frames=chunk.frames,
        video=chunk.video,
        path=write_path(chunk.path),
        control_sequence=chunk.control_sequence,
        latent_sha256=chunk.latent_sha256,
        stage_ms=chunk.stage_ms,
        key_to_frame_ms=key_to_frame_ms,
    )


def write_received(sequence: int) -> stream_pb2.Receipt:
    return stream_pb2.Receipt(sequence=sequence, state=stream_pb2.Receipt.STATE_RECEIVED)


def write_applied(sequence: int, chunk: int) -> stream_pb2.Receipt:
    return stream_pb2.Receipt(sequence=sequence, state=stream_pb2.Receipt.STATE_APPLIED, chunk=chunk)


def write_heartbeat() -> stream_pb2.Heartbeat:
    beat = Timestamp()
    beat.FromNanoseconds(time.time_ns())
    return stream_pb2.Heartbeat(time=beat)


def write_end(ending: Ending, last_chunk: int | None) -> stream_pb2.End:
    return stream_pb2.End(reason=_REASONS[ending.reason], message=ending.message, last_chunk=last_chunk)
