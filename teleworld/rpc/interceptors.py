"""The boundary of a served call: trace, deadline, errors and the request log, in one interceptor of ours.

One, because the four depend on each other: the log needs the code that the error became, the span needs both. It turns
every handler into a coroutine that runs in the call's own task and writes its responses itself. A wrapped async generator
would be finalised somewhere else when a client goes away, which breaks cancellation and detaches trace contexts wrongly.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
from opentelemetry import metrics, propagate, trace

from teleworld.rpc import deadline, status
from teleworld.world.errors import InvalidInput

_log = logging.getLogger("teleworld.rpc")
_tracer = trace.get_tracer("teleworld.rpc")
_duration = metrics.get_meter("teleworld.rpc").create_histogram("rpc.server.duration", "ms", "Duration of served calls")


class ServerBoundary(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our own services; health, reflection and channelz pass untouched.

    `require_deadline` refuses a call without a deadline (INVALID_ARGUMENT, field `deadline`): right between our services,
    not for the long streams of the public API.
    """

    def __init__(self, *, require_deadline: bool) -> None:
        self._require_deadline = require_deadline

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/teleworld."):
            return handler
        return self._wrap(handler, details)

    def _wrap(self, handler: Any, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            async with self._boundary(details, context):
                return await behaviour(request, context)

        async def stream(request: Any, context: grpc.aio.ServicerContext) -> None:
            async with self._boundary(details, context), aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    await context.write(response)

        codec = {
            "request_deserializer": handler.request_deserializer,
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
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        )
        with span as current, deadline.bound(seconds):
            try:
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
                current.set_attribute("rpc.grpc.status", code)
                _duration.record(elapsed_ms, attributes | {"rpc.grpc.status": code})
                _log.info("call", extra={"method": details.method, "code": code, "ms": round(elapsed_ms, 2)})
