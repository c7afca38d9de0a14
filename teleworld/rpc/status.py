"""The only map between the errors of `teleworld.world.errors` and gRPC statuses, in both directions.

A status carries google.rpc details: ErrorInfo (the error's reason and its values), BadRequest for an invalid field,
RetryInfo for a refused admission. A client of ours gets the exception back that the server raised. The text of an
`Internal` stays on the server. Statuses that gRPC itself makes (a lost connection, a message over the limit) have no
details; they are told by code and, where the code alone misleads, by gRPC's own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from teleworld.world.errors import (
    CheckpointError,
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    PreconditionFailed,
    StaleEpoch,
    StateLost,
    TeleWorldError,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "teleworld"
DETAILS_KEY = "grpc-status-details-bin"
INTERNAL_TEXT = "internal error"

# A subclass comes before its base: the first match wins.
_CODES: tuple[tuple[type[TeleWorldError], grpc.StatusCode], ...] = (
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (Conflict, grpc.StatusCode.ALREADY_EXISTS),
    (StaleEpoch, grpc.StatusCode.ABORTED),
    (PreconditionFailed, grpc.StatusCode.FAILED_PRECONDITION),
    (Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (Internal, grpc.StatusCode.INTERNAL),
)
_NUMBERS = {code: getattr(code_pb2, code.name) for code in grpc.StatusCode}
_FIELD_ERRORS = {InvalidInput.reason: InvalidInput, CheckpointError.reason: CheckpointError}
_TEXT_ERRORS: dict[str, type[TeleWorldError]] = {
    error.reason: error
    for error in (
        Unauthenticated,
        PermissionDenied,
        Conflict,
        PreconditionFailed,
        StateLost,
        Unavailable,
        DeadlineExceeded,
        Internal,
    )
}
_TOO_LARGE = re.compile(r"message larger than max", re.IGNORECASE)
# The last is what grpc.aio makes of a message that is written just when the peer ends the call, whose own status is lost.
_CONNECTION_LOST = re.compile(
    r"RST_STREAM|Stream removed|GOAWAY|Socket closed|Connection reset|Internal error from Core", re.IGNORECASE
)


def code_of(error: BaseException) -> grpc.StatusCode:
    """The status code of an error; anything that is not ours is INTERNAL."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def to_status(error: BaseException) -> status_pb2.Status:
    """The status of an error, with its details. An error that is not ours becomes an `Internal` without its text."""
    known = error if isinstance(error, TeleWorldError) else Internal(INTERNAL_TEXT)
    code = code_of(known)
    text = INTERNAL_TEXT if code is grpc.StatusCode.INTERNAL else known.message
    status = status_pb2.Status(code=_NUMBERS[code], message=text)
    info = error_details_pb2.ErrorInfo(reason=known.reason, domain=DOMAIN)
    match known:
        case InvalidInput():
            violation = error_details_pb2.BadRequest.FieldViolation(field=known.field, description=known.problem)
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        case NotFound():
            info.metadata["resource"] = known.resource
        case StaleEpoch():
            info.metadata.update(world=known.world, epoch=str(known.epoch), current=str(known.current))
        case Overloaded():
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(round(known.retry_after_s * 1e9))
            status.details.add().Pack(retry)
    status.details.add().Pack(info)
    return status


async def abort(context: grpc.aio.ServicerContext, error: BaseException) -> None:
    """End a call with the status of `error`. Never returns: gRPC raises its AbortError."""
    status = to_status(error)
    await context.abort(code_of(error), status.message, ((DETAILS_KEY, status.SerializeToString()),))


def from_rpc_error(error: grpc.RpcError) -> TeleWorldError:
    """The error that a server of ours raised, or the nearest one for a status that gRPC made itself."""
    code, text = error.code(), error.details() or ""
    status = _details(error)
    return (status and from_status(status)) or _from_code(code, text)


def from_status(status: status_pb2.Status) -> TeleWorldError | None:
    """The error that `to_status` wrote; None when the status carries no details of ours."""
    info, request, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, request, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    if info.domain != DOMAIN:
        return None
    if info.reason in _FIELD_ERRORS and request.field_violations:
        violation = request.field_violations[0]
        return _FIELD_ERRORS[info.reason](violation.field, violation.description)
    if info.reason == NotFound.reason:
        return NotFound(info.metadata["resource"])
    if info.reason == StaleEpoch.reason:
        return _stale_epoch(info)
    if info.reason == Overloaded.reason:
        return Overloaded(status.message, retry.retry_delay.ToNanoseconds() / 1e9)
    kind = _TEXT_ERRORS.get(info.reason)
    return kind(status.message) if kind else None


def _stale_epoch(info: error_details_pb2.ErrorInfo) -> TeleWorldError | None:
    try:
        return StaleEpoch(info.metadata["world"], int(info.metadata["epoch"]), int(info.metadata["current"]))
    except ValueError:
        return None


def _details(error: grpc.RpcError) -> status_pb2.Status | None:
    for key, value in cast("Iterable[tuple[str, bytes]]", error.trailing_metadata() or ()):
        if key == DETAILS_KEY:
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _from_code(code: grpc.StatusCode, text: str) -> TeleWorldError:
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return InvalidInput("request", text)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return InvalidInput("message", text) if _TOO_LARGE.search(text) else Overloaded(text)
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(text or "the resource")
        case grpc.StatusCode.ALREADY_EXISTS | grpc.StatusCode.ABORTED:
            return Conflict(text)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return PreconditionFailed(text)
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated(text)
        case grpc.StatusCode.PERMISSION_DENIED:
            return PermissionDenied(text)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return Unavailable(text)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(text)
    return Unavailable(text) if _CONNECTION_LOST.search(text) else Internal(f"{code.name}: {text}")
