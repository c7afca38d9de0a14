"""The boundary of a served call: trace, deadline, errors and the request log, in one interceptor of ours.

One, because the four depend on each other: the log needs the code that the error became, the span needs both. It turns
every handler into a coroutine that runs in the call's own task and writes its responses itself. A wrapped async generator
would be finalised somewhere else when a client goes away, which breaks cancellation and detaches trace contexts wrongly.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import baggage, metrics, propagate, trace
from opentelemetry.context import Context

from teleworld.rpc import deadline, link, status
from teleworld.rpc.tls import is_known, peer_names
from teleworld.world.errors import InvalidInput, PermissionDenied

_log = logging.getLogger("teleworld.rpc")
_tracer = trace.get_tracer("teleworld.rpc")
# The services that we implement: our own contracts, and KEDA's.
SERVED = ("/teleworld.", "/externalscaler.")
# What of a caller's baggage goes onto the span, between our services: at most so many characters of each.
_CARRIED, _CARRIED_LENGTH = ("teleworld.world", "teleworld.tenant"), 64
_duration = metrics.get_meter("teleworld.rpc").create_histogram("rpc.server.duration", "ms", "Duration of served calls")


class ServerBoundary(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our own services; health, reflection and channelz pass untouched.

    `require_deadline` refuses a call without a deadline (INVALID_ARGUMENT, field `deadline`): right between our services,
    not for the long streams of the public API. `callers`: who may call, by the names that its certificate proves; anybody
    if empty.
    """

    def __init__(self, *, require_deadline: bool, callers: Sequence[str] = ()) -> None:
        self._require_deadline = require_deadline
        self._callers = tuple(callers)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(SERVED):
            return handler
        return self._wrap(handler, details)

    def _wrap(self, handler: Any, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        checked = _each if handler.request_streaming else _whole

        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            async with self._boundary(details, context):
                return await behaviour(checked(request), context)

        async def stream(request: Any, context: grpc.aio.ServicerContext) -> None:
            async with self._boundary(details, context), aclosing(behaviour(checked(request), context)) as responses:
                async for response in responses:
                    await context.write(response)

        codec = {
            "request_deserializer": _tolerant(handler.request_deserializer),
            "response_serializer": handler.response_serializer,
        }
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                behaviour = handler.unary_unary
                return grpc.unary_unary_rpc_method_handler(answer, **codec)
            case False, True:
                behaviour = handler.unary_stream
                return grpc.unary_stream_rpc_method_handler(stream, **codec)
            case True, False:
                behaviour = handler.stream_unary
                return grpc.stream_unary_rpc_method_handler(answer, **codec)
            case _:
                behaviour = handler.stream_stream
                return grpc.stream_stream_rpc_method_handler(stream, **codec)

    @asynccontextmanager
    async def _boundary(
        self, details: grpc.HandlerCallDetails, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[None]:
        service, _, method = details.method.lstrip("/").partition("/")
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        parent = propagate.extract({key: value for key, value in details.invocation_metadata if isinstance(value, str)})
        seconds = context.time_remaining()
        started, code = time.monotonic(), "OK"
        span = _tracer.start_as_current_span(
            f"{service}/{method}",
            context=parent,
            kind=trace.SpanKind.SERVER,
            attributes=attributes | (_carried(parent) if self._require_deadline else {}),
            record_exception=False,
            set_status_on_exception=False,
        )
        route = link.agreed(context.peer(), details.invocation_metadata)
        if route is not None:
            context.set_trailing_metadata(((link.METADATA_KEY, route.segments.namespace),))
        with span as current, deadline.bound(seconds), link.over(route):
            try:
                if self._callers and not is_known(names := peer_names(context), self._callers):
                    raise PermissionDenied(f"{', '.join(sorted(names)) or 'a nameless peer'} may not call {service}")
                if self._require_deadline and seconds is None:
                    raise InvalidInput("deadline", "the call needs a deadline")
                yield
            except asyncio.CancelledError:
                code = (
                    "DEADLINE_EXCEEDED"
                    if seconds is not None and time.monotonic() - started >= seconds
                    else "CANCELLED"
                )
                raise
            except grpc.aio.AbortError:
                code = context.code().name
                raise
            except Exception as error:  # this is the boundary: nothing may pass it unmapped
                code = status.code_of(error).name
                current.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
                if code == grpc.StatusCode.INTERNAL.name:
                    current.record_exception(error)
                    _log.exception("call failed", extra={"method": details.method})
                await status.abort(context, error)
            finally:
                elapsed_ms = (time.monotonic() - started) * 1e3
                current.set_attribute("rpc.grpc.status_code", code)
                _duration.record(elapsed_ms, attributes | {"rpc.grpc.status_code": code})
                # A busy gateway is asked, and asks, hundreds of times a second: what went well is counted, not told.
                level = logging.DEBUG if code == "OK" else logging.INFO
                _log.log(level, "call", extra={"method": details.method, "code": code, "ms": round(elapsed_ms, 2)})


def _carried(parent: Context) -> dict[str, str]:
    """The world and the tenant that a call is for, as its caller says."""
    said = {name: baggage.get_baggage(name, parent) for name in _CARRIED}
    return {name: value[:_CARRIED_LENGTH] for name, value in said.items() if isinstance(value, str)}


class _Malformed:
    """Stands for a message that cannot be parsed, until the call is inside of its boundary: gRPC would say UNKNOWN."""


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _Malformed()

    return parsed


def _whole(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise InvalidInput("message", "cannot be parsed")
    return request


async def _each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _whole(request)
