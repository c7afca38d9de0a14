"""Every error of ours crosses the wire and comes back as itself; what gRPC says on its own is understood."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from teleworld.rpc import status
from teleworld.world import errors

ALL = [
    errors.InvalidInput("poses[3]", "must be finite"),
    errors.CheckpointError("dit.safetensors", "has no blocks"),
    errors.NotFound("worlds/abc"),
    errors.Unauthenticated("a valid credential is needed"),
    errors.PermissionDenied("the credential does not allow that"),
    errors.Conflict("another picture has this request_id"),
    errors.StaleEpoch("abc", 3, 5),
    errors.PreconditionFailed("beyond the retention horizon"),
    errors.StateLost("no state after latent 3"),
    errors.Overloaded("full", 1.25),
    errors.Unavailable("draining"),
    errors.DeadlineExceeded("too late"),
    errors.Internal("the secret detail"),
]


def tree(kind: type[errors.TeleWorldError]) -> set[type[errors.TeleWorldError]]:
    return {kind}.union(*(tree(child) for child in kind.__subclasses__())) if kind.__subclasses__() else {kind}


def test_the_list_above_is_the_whole_tree() -> None:
    ours = {kind for kind in tree(errors.TeleWorldError) if kind.__module__ == errors.__name__}
    assert {type(error) for error in ALL} == ours - {errors.TeleWorldError}


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.reason)
def test_an_error_comes_back_as_itself(error: errors.TeleWorldError) -> None:
    wire = status_pb2.Status.FromString(status.to_status(error).SerializeToString())
    back = status.from_status(wire)
    assert type(back) is type(error)
    if not isinstance(error, errors.Internal):
        assert vars(back) == vars(error)


@pytest.mark.parametrize("error", [errors.Internal("the secret detail"), ValueError("the secret detail")])
def test_the_text_of_a_defect_stays_on_the_server(error: Exception) -> None:
    wire = status.to_status(error)
    assert wire.code == grpc.StatusCode.INTERNAL.value[0]
    assert b"secret" not in wire.SerializeToString()


def test_details_are_those_of_google_rpc() -> None:
    wire = status.to_status(errors.Overloaded("full", 1.25))
    retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    assert wire.details[0].Unpack(retry)
    assert wire.details[1].Unpack(info)
    assert retry.retry_delay.ToMilliseconds() == 1250
    assert (info.domain, info.reason) == ("teleworld", "OVERLOADED")
    request = error_details_pb2.BadRequest()
    assert status.to_status(errors.InvalidInput("seed", "is negative")).details[0].Unpack(request)
    assert request.field_violations[0].field == "seed"


def rpc_error(code: grpc.StatusCode, text: str, metadata: tuple = ()) -> grpc.RpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=text)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", errors.Unavailable),
        (grpc.StatusCode.CANCELLED, "", errors.Unavailable),
        (grpc.StatusCode.UNKNOWN, "Stream removed", errors.Unavailable),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", errors.Unavailable),
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", errors.Unavailable),
        (grpc.StatusCode.INTERNAL, "", errors.Internal),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", errors.Internal),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineExceeded),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (20 vs. 16)",
            errors.InvalidInput,
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "", errors.Overloaded),
        (grpc.StatusCode.INVALID_ARGUMENT, "", errors.InvalidInput),
        (grpc.StatusCode.NOT_FOUND, "", errors.NotFound),
        (grpc.StatusCode.ABORTED, "", errors.Conflict),
        (grpc.StatusCode.FAILED_PRECONDITION, "", errors.PreconditionFailed),
        (grpc.StatusCode.PERMISSION_DENIED, "", errors.PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, "", errors.Unauthenticated),
    ],
)
def test_a_status_without_details_is_told_by_code_and_words(
    code: grpc.StatusCode, text: str, kind: type[errors.TeleWorldError]
) -> None:
    assert type(status.from_rpc_error(rpc_error(code, text))) is kind


def test_broken_or_foreign_details_are_ignored() -> None:
    broken = rpc_error(grpc.StatusCode.NOT_FOUND, "x", ((status.DETAILS_KEY, b"\xff\xff"),))
    assert type(status.from_rpc_error(broken)) is errors.NotFound
    foreign = status_pb2.Status(code=5)
    foreign.details.add().Pack(error_details_pb2.ErrorInfo(domain="elsewhere", reason="STALE_EPOCH"))
    assert status.from_status(foreign) is None
    forged = status_pb2.Status(code=10)
    forged.details.add().Pack(error_details_pb2.ErrorInfo(domain="teleworld", reason="STALE_EPOCH"))
    assert status.from_status(forged) is None
